"""The lower sections of report.html: examples, re-ranking, ablation, facts."""

from collections.abc import Mapping, Sequence
import html
from typing import Any

from input_pipeline import languages as language_names
from m3p_jax.evaluation import charts
from m3p_jax.evaluation import sections

Content = Mapping[str, Any]


def examples(content: Mapping[str, Content], setting: str) -> str:
  """Returns queries with the pictures found.

  Args:
    content: of examples.json.
    setting: whose are shown; those evaluated last where it has none.
  """
  last = _of(content, setting)
  if not last:
    return ''
  return sections.section(
      'Examples',
      'Captions of the test pictures, drawn at random before any result was '
      f'known, and the first pictures that {_name(last)} found among '
      'all. ✓ marks right answers; “rank” is that of the first.',
      _queries(last['queries'], last['pictures']))


def mistakes(content: Mapping[str, Content], setting: str) -> str:
  """Returns the queries with the worst ranks; arguments as `examples`."""
  last = _of(content, setting)
  if not last.get('mistakes'):
    return ''
  return sections.section(
      'Worst mistakes', f'In some languages the caption that {_name(last)} '
      'ranks worst: the pictures it found instead, and the one that was '
      'wanted (framed).',
      _queries(last['mistakes'], last['pictures'], wanted=True))


def _of(content: Mapping[str, Content], setting: str) -> Content:
  """Returns a setting's examples, else those evaluated last; {} for none."""
  if not content:
    return {}
  setting = setting if setting in content else list(content)[-1]
  return dict(content[setting]) | {'setting': setting}


def _name(last: Content) -> str:
  return (f'setting “{html.escape(last["setting"])}” '
          f'({sections.MODES[last["mode"]]})')


def _queries(queries: Sequence[Content], pictures: Mapping[str, str], *,
             wanted: bool = False) -> str:
  parts = []
  for query in queries:
    code = query['language']
    english = '' if code == 'en' else (
        f'<span class="soft"> · {html.escape(query["english"])}</span>')
    shown = query['found']
    if wanted:
      shown = [*shown[:-1], query['wanted']]
    found = ''.join(_figure(one, pictures) for one in shown)
    parts.append(
        f'<div class="query"><h3>{_caption(code, query["text"])}{english}'
        f'<span class="soft"> · rank {query["rank"]}</span></h3>'
        f'<div class="found">{found}</div></div>')
  return f'<div class="queries">{"".join(parts)}</div>'


def _caption(code: str, text: str) -> str:
  return (f'<span class="chip">{html.escape(language_names.name(code))}</span>'
          f'<bdi class="text" lang="{code.replace("_", "-")}" dir="auto">'
          f'{html.escape(text)}</bdi>')


def _figure(found: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
  name = html.escape(found['english'] or found['image_id'])
  uri = pictures.get(found['image_id'])
  picture = (f'<img src="{uri}" alt="{name}">' if uri
             else html.escape(found['image_id']))
  state = ' class="right"' if found['is_right'] else ''
  return (f'<figure{state}><div class="picture">{picture}</div>'
          f'<figcaption title="{name}">{name}</figcaption></figure>')


def attention(content: Content) -> str:
  """Returns where words look in their pictures.

  Args:
    content: of attention.json, see `attention.collect`.
  """
  parts = []
  for pair in content.get('pairs', ()):
    figures = []
    for word in pair['words']:
      low, high = min(word['weights']), max(word['weights'])
      boxes = ''.join(
          f'<rect x="{x1:.3f}" y="{y1:.3f}" width="{x2 - x1:.3f}" '
          f'height="{y2 - y1:.3f}" opacity="'
          f'{0.7 * (weight - low) / max(high - low, 1e-9):.2f}"/>'
          for (x1, y1, x2, y2), weight in zip(
              pair['boxes'], word['weights'], strict=True))
      name = html.escape(word['word'])
      figures.append(
          f'<figure><div class="looked"><img src="{pair["picture"]}" '
          f'alt="{html.escape(pair["image_id"])}"><svg '
          'viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">'
          f'{boxes}</svg></div><figcaption><bdi>{name}</bdi></figcaption>'
          '</figure>')
    parts.append(
        f'<div class="query"><h3>{_caption(pair["language"], pair["text"])}'
        f'</h3><div class="found">{"".join(figures)}</div></div>')
  if not parts:
    return ''
  return sections.section(
      'Where words look', 'Attention from each word to the picture’s regions '
      'in the joint encoder, mean over layers and heads: clear is the '
      'word’s weakest region, dark its strongest. It shows where the model '
      'reads, which is not always why it decides.',
      f'<div class="queries">{"".join(parts)}</div>')


def reranking(choice: Content) -> str:
  """Returns the curves behind the choice of top k and joint weight.

  Args:
    choice: of rerank_choice.json, see `rerank.Choice.to_json`.
  """
  if not choice:
    return ''
  by_k = sorted((int(k), v) for k, v in choice['top_k_curve'].items())
  by_weight = sorted(
      (float(w), v) for w, v in choice['joint_weight_curve'].items())
  dual, largest = by_k[0][1], by_k[-1][0]
  series = ['re-ranked', 'dual alone']
  drawn = [charts.lines(
      {series[0]: by_k}, title='mean recall by top k (0 = dual alone)',
      x_label='candidates re-ranked')]
  weighed = [(w, v) for w, v in by_weight if w >= 0]
  if len(weighed) > 1:
    drawn.append(charts.lines(
        dict(zip(series, (weighed, [(w, dual) for w, _ in weighed]),
                 strict=True)),
        title=f'mean recall by joint weight, top {largest}',
        x_label='joint weight'))
  alone = dict(by_weight).get(-1.0)
  note = '' if alone is None else (
      f' The match logit alone (no dual score) gives {alone:.1f} at top '
      f'{largest}.')
  if choice['top_k'] == 1:
    note += (' Re-ranking a single candidate changes nothing: the joint '
             'encoder did not improve on the dual one here.')
  weight = choice['joint_weight']
  rule = ('match logit alone' if weight < 0 else
          f'dual logit + {weight:g} · match logit')
  return sections.section(
      'Re-ranking by the joint encoder',
      'Both were chosen on the validation split, averaged over languages: '
      f'top {choice["top_k"]}, score = {rule}. There the dual encoder alone '
      f'gives {dual:.1f}, re-ranked {dict(by_k)[choice["top_k"]]:.1f}.{note}',
      charts.legend(series) + f'<div class="grid">{"".join(drawn)}</div>')


def ablation(markdown: str) -> str:
  """Returns the ablation's table.

  Args:
    markdown: a table, and paragraphs around it.
  """
  rows, paragraphs = [], []
  for line in markdown.splitlines():
    if line.startswith('|'):
      cells = [cell.strip() for cell in line.strip('|').split('|')]
      if not all(set(cell) <= set('-:') for cell in cells):
        rows.append(cells)
    elif line.strip():
      paragraphs.append(html.escape(line.strip(' #')))
  if not rows:
    return ''
  return sections.section(
      'Does code-switching help?', '<br>'.join(paragraphs),
      sections.table(rows[0], rows[1:]))


def facts(content: Content, timings: Content) -> str:
  """Returns how, where and when the numbers came about.

  Args:
    content: of retrieval.json.
    timings: {stage: {'seconds', …}}; may be empty.
  """
  cells = content['settings']
  last = list(cells.values())[-1]
  run = last.get('run', {})
  parts = ['<dl>']
  for title, value in (
      ('command', run.get('command')), ('machine', run.get('machine')),
      ('commit', run.get('commit')), ('date', run.get('date')),
      ('versions', ', '.join(
          f'{k} {v}' for k, v in run.get('versions', {}).items()))):
    if value:
      shown = html.escape(value)
      code = f'<code>{shown}</code>' if title == 'command' else shown
      parts.append(f'<dt>{title}</dt><dd>{code}</dd>')
  parts.append('</dl>')
  parts.append(sections.table(
      ['setting', 'seed', 'parameters', 'step', 'pairs scored',
       'seconds of evaluation'],
      [[name, str(cell.get('seed', '–')), f'{cell.get("parameters", 0):,}',
        str(cell['step']), f'{cell["pairs_scored"]:,}',
        f'{cell["seconds"]:.0f}'] for name, cell in cells.items()]))
  if timings:
    rows = [[name, f'{one["seconds"] / 60:.1f}'] for name, one
            in timings.items() if 'seconds' in one]
    total = sum(one.get('seconds', 0) for one in timings.values())
    parts.append('<h3>Time</h3>' + sections.table(
        ['stage', 'minutes'],
        [*rows, ['*together', f'*{total / 60:.1f}']]))
  return sections.section('How this came about', '', ''.join(parts))
