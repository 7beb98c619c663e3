"""The sections of report.html, each from files of the workdir.

A section is a function of loaded JSON that returns HTML, '' where there is
nothing to show. Text from data is escaped here.
"""

from collections.abc import Mapping, Sequence
import html
from typing import Any

from input_pipeline import languages as language_names
from m3p_jax.evaluation import charts
from m3p_jax.evaluation import results

Content = Mapping[str, Any]
MODES = {'dual': 'dual encoder', 'joint': 'joint encoder',
         'rerank': 're-ranked'}
# Losses that have a baseline of their own: see m3p_jax/training/frequencies.py.
_LOSSES = {'loss': 'unigram_loss', 'class_loss': 'class_unigram_loss',
           'feature_loss': 'mean_feature_loss'}


def section(title: str, text: str, body: str) -> str:
  """Returns a card; `text` and `body` are HTML."""
  intro = f'<p class="soft">{text}</p>' if text else ''
  return f'<section><h2>{html.escape(title)}</h2>{intro}{body}</section>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *,
          last_class: str = '') -> str:
  """Returns an HTML table that scrolls sideways; cells are plain text.

  Args:
    head: titles of the columns.
    rows: cells; '*' in front of one makes it bold.
    last_class: class of the last row.
  """
  parts = ['<div class="scroll"><table><tr>',
           *(f'<th>{html.escape(title)}</th>' for title in head), '</tr>']
  for index, row in enumerate(rows):
    is_last = last_class and index == len(rows) - 1
    parts.append(f'<tr class="{last_class}">' if is_last else '<tr>')
    for cell in row:
      best = ' class="best"' if cell.startswith('*') else ''
      parts.append(f'<td{best}>{html.escape(cell.removeprefix("*"))}</td>')
    parts.append('</tr>')
  return ''.join(parts) + '</table></div>'


def rows_of(files: Sequence[Content]) -> dict[str, Content]:
  """Returns {'all' or 'all, re-ranked': cell} of files of one test set."""
  rows = {}
  for content in files:
    for setting, cell in content['settings'].items():
      name = setting
      if content is not files[0]:
        name += f', {MODES[content["mode"]]}'
      rows[name] = cell
  return rows


def figures(files: Sequence[Content]) -> str:
  """Returns the few numbers that a reader sees first."""
  groups = results.language_groups(files[0])
  setting, cell = list(files[0]['settings'].items())[-1]
  parts = []
  for title, names in groups.items():
    value = results.mean(cell, names)
    if value is not None:
      name = (language_names.name(names[0]) if len(names) == 1
              else f'mean of {len(names)} {title} languages')
      parts.append(f'<div><b>{value:.1f}</b><span>{html.escape(name)}'
                   f'<br>setting “{html.escape(setting)}”</span></div>')
  chance = results.mean(cell, list(cell['languages']), 'chance')
  parts.append(f'<div><b>{chance:.1f}</b><span>by chance<br>'
               f'{len(cell["languages"])} languages</span></div>')
  return f'<div class="figures">{"".join(parts)}</div>'


def overview(files: Sequence[Content]) -> str:
  """Returns settings × groups of languages, and settings × languages."""
  rows = rows_of(files)
  groups = results.language_groups(files[0])
  titles = [language_names.name(names[0]) if len(names) == 1
            else f'{len(names)} {title}' for title, names in groups.items()]
  body = table(['setting', *titles], _value_rows(rows, groups),
               last_class='chance')
  languages = {name: [name] for names in groups.values() for name in names}
  transposed = list(zip(*_value_rows(rows, languages), strict=True))
  full = table(['language', *rows, 'chance'], [
      (f'{language_names.name(name)} ({name})', *values)
      for name, values in zip(languages, transposed[1:], strict=True)])
  first = files[0]
  cell = next(iter(first['settings'].values()))
  count = next(iter(cell['languages'].values()))['num_images']
  # Each once, whichever of the rows it is said of.
  deviations = ''.join(dict.fromkeys(
      f'<br><b>{title}:</b> {html.escape(one)}.' for cell in rows.values()
      for title, told in (
          ('Not comparable with published numbers', cell.get('deviations', ())),
          ('Left out', cell.get('left_out', ())),
          ('Cut', filter(None, [results.cut_note(cell)])))
      for one in told))
  return section(
      f'Retrieval: {first["dataset"]}, {first["split"]}',
      f'Protocol <code>{html.escape(first["protocol"])}</code>, {count} '
      f'pictures; {MODES[first["mode"]]} unless a row says otherwise. Mean '
      'recall in per cent: the mean of R@1, R@5 and R@10, text → image and '
      'image → text. '
      'Chance is exact, for the number of right answers and candidates. '
      'Settings: <i>no_finetune</i> is pre-training alone; <i>en</i>, '
      '<i>each</i> and <i>all</i> are fine-tuned on captions in English, in '
      f'each language, in all supervised languages.{deviations}',
      f'{body}<details open><summary>Every language</summary>{full}</details>')


def _value_rows(rows: Mapping[str, Content],
                columns: Mapping[str, Sequence[str]]) -> list[list[str]]:
  """Returns rows of texts, the best value of a column marked; chance last."""
  values = {
      row: [results.mean(cell, names) for names in columns.values()]
      for row, cell in rows.items()}
  best = [max((v for v in column if v is not None), default=None)
          for column in zip(*values.values(), strict=True)]
  lines = [
      [row, *('–' if v is None else f'{"*" if v == top else ""}{v:.1f}'
              for v, top in zip(cells, best, strict=True))]
      for row, cells in values.items()]
  largest = max(rows.values(), key=lambda cell: len(cell['languages']))
  chance = [results.mean(largest, names, 'chance')
            for names in columns.values()]
  return [*lines, ['chance', *(
      '–' if v is None else f'{v:.1f}' for v in chance)]]


def by_language(files: Sequence[Content]) -> str:
  """Returns bars of mean recall, a group for each language."""
  settings = files[0]['settings']
  groups = results.language_groups(files[0])
  series = list(settings)
  # The re-ranked row beside the setting it re-ranks.
  shown = {name: cell for name, cell in rows_of(files).items()
           if name in settings or name.startswith(f'{series[-1]}, ')}
  series = list(shown)
  parts = [charts.legend(series)]
  for title, names in groups.items():
    values, marks = {}, {}
    for name in names:
      values[name] = {
          row: cell['languages'][name]['mean_recall']
          for row, cell in shown.items() if name in cell['languages']}
      marks[name] = next(
          cell['languages'][name]['chance'] for cell in shown.values()
          if name in cell['languages'])
    top = max(value for cell in shown.values() for value in (
        one['mean_recall'] for one in cell['languages'].values()))
    labels = {name: language_names.name(name) for name in names}
    heading = '' if title == 'en' else f'<h3>{html.escape(title)}</h3>'
    parts.append(f'{heading}<div class="columns">' + charts.bars(
        values, series, marks=marks, labels=labels, top=top) + '</div>')
  return section(
      'By language', 'Mean recall in per cent; the dashed line is chance. '
      '“Held out” languages were in no caption that any setting trained on.',
      ''.join(parts))


def losses(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
  """Returns loss curves of every task of every stage, and what was learned.

  Args:
    runs: {stage: lines of metrics.jsonl}.
  """
  parts, learned = [], []
  for stage, entries in runs.items():
    tasks = list(dict.fromkeys(
        key.removesuffix('/loss') for entry in entries for key in entry
        if key.endswith('/loss') and not key.startswith(
            ('validation/', 'train/'))))
    drawn = []
    for task in tasks:
      series = {
          'training': _points(entries, f'{task}/loss'),
          'validation': _points(entries, f'validation/{task}/loss')}
      if not series['training']:
        continue
      drawn.append(charts.lines(series, title=task, x_label='step',
                                y_label='nats'))
      learned += _learned(entries, stage, task)
    if drawn:
      parts.append(f'<h3>{html.escape(stage)}</h3><div class="grid">'
                   f'{"".join(drawn)}</div>')
  if not parts:
    return ''
  body = charts.legend(['training', 'validation']) + ''.join(parts)
  if learned:
    body += '<h3>On held-out data</h3>' + table(
        ['task', 'first loss', 'frequencies alone', 'last loss',
         'last accuracy'], learned)
  return section(
      'Training', 'Loss of each task in nats. Points of the validation loss '
      'tell their value when pointed at. “Frequencies alone” is the loss of '
      'knowing how often each token or class occurs, or the mean feature.',
      body)


def _learned(entries: Sequence[Mapping[str, float]], stage: str,
             task: str) -> list[list[str]]:
  """Returns a task's rows: first, baseline's and last validation losses."""

  def points(name: str) -> list[tuple[float, float]]:
    return _points(entries, f'validation/{task}/{name}')

  rows, accuracy = [], points('accuracy')
  for name, baseline in _LOSSES.items():
    found, known = points(name), points(baseline)
    # A sum of losses has no baseline: its parts are shown instead.
    if found and not (name == 'loss' and points('class_loss')):
      rows.append([
          f'{stage}: {task}' + (f', {name.removesuffix("_loss")}'
                                if name != 'loss' else ''),
          f'{found[0][1]:.3f}', f'{known[-1][1]:.3f}' if known else '–',
          f'{found[-1][1]:.3f}',
          f'{100 * accuracy[-1][1]:.1f} %'
          if accuracy and name != 'feature_loss' else '–'])
  return rows


def _points(entries: Sequence[Mapping[str, float]],
            key: str) -> list[tuple[float, float]]:
  return [(entry['step'], entry[key]) for entry in entries if key in entry]
