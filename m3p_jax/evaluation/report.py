"""report.html of a workdir, in one file that needs no network.

python -m m3p_jax.evaluation.report --workdir=DIR rebuilds it from
retrieval*.json, ranks/, examples.json, attention.json, captions/*.json,
metrics.jsonl, rerank_choice.json, ablation.md and timings.json, those that
there are. The functions here choose and format what report.html.j2 shows.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from absl import flags
import jinja2

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import languages as language_names
from input_pipeline import paths
from m3p_jax import metrics
from m3p_jax.evaluation import charts
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import results

Content = Mapping[str, Any]
MODES = {'dual': 'dual encoder', 'joint': 'joint encoder',
         'rerank': 're-ranked'}
# Stages in the order in which they were run; others follow by name.
STAGES = ('warm_start', 'pretrain', 'en', 'all')
# Title, key of a direction's metrics, and digits after the point.
_METRICS = (
    ('R@1', 'r1', 1), ('R@5', 'r5', 1), ('R@10', 'r10', 1),
    ('median rank', 'median_rank', 1), ('mean rank', 'mean_rank', 1),
    ('MRR', 'mrr', 3), ('nDCG@10', 'ndcg10', 3))


def write(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes WORKDIR/report.html whole or not at all, and returns its path.

  Raises:
    UserError: nothing was measured yet, or one of the files is broken.
  """
  workdir = paths.of(workdir)
  path = workdir / 'report.html'
  results.write_text(path, build(workdir))
  return path


def build(workdir: pathlib.Path) -> str:
  """Returns the report as HTML."""
  sets, written = _result_files(workdir), _written(workdir)
  if not (sets or written):
    raise errors.UserError(
        f'{workdir}: no retrieval.json; evaluate first (python main.py '
        f'--mode=evaluate --workdir={workdir})')
  return _ENVIRONMENT.get_template('report.html.j2').render(
      **_found(workdir, sets) if sets else {'sets': (), 'metrics': ()},
      written=written,
      losses=charts.losses(_runs(workdir)),
      ablations=[_ablation(path.read_text(encoding='utf-8'))
                 for path in sorted(workdir.glob('ablation*.md'))],
      facts=_facts(next(iter(sets[0].values())) if sets else None, written,
                   results.read(workdir / 'timings.json')))


def _found(workdir: pathlib.Path,
           sets: Sequence[Mapping[pathlib.Path, Content]]) -> dict[str, Any]:
  """Returns what is shown of retrieval."""
  files = list(sets[0].values())
  settings = [(path, setting) for path, content in sets[0].items()
              for setting in content['settings']]
  ranks = {row: results.load_ranks(*key) for row, key in zip(
      rows_of(files), settings, strict=True)}
  return {
      'dataset': _title(files[0]['dataset']),
      'num_languages': len({
          name for content in files for entry in content['settings'].values()
          for name in entry['languages']}),
      'figures': _figures(files[0]),
      'sets': [_overview(list(one.values())) for one in sets],
      'bars': _bars(files), 'recall': charts.recall(ranks),
      'consistency': _consistency(rows_of(files)),
      'examples': _examples(results.read(workdir / 'examples.json'),
                            list(files[0]['settings'])[-1]),
      'attention': results.read(workdir / 'attention.json').get('pairs'),
      'two_stages': charts.two_stages(files),
      'reranking': charts.reranking(
          results.read(workdir / 'rerank_choice.json')),
      'metrics': [_metrics(list(one.values())) for one in sets]}


def _title(dataset: str) -> str:
  return dataset.replace('_', ' ').title()


def _written(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns what was written of each set of pictures, and its scores."""
  found = []
  for path in sorted((workdir / 'captions').glob('*.json')):
    content = results.read(path)
    asked = content['generate']
    how = (f'drawn at temperature {asked["temperature"]:g}'
           if asked['temperature'] else f'beam of {asked["num_beams"]}'
           if asked['num_beams'] > 1 else 'greedy')
    if source := asked.get('source'):
      how = (f'translated from {language_names.name(source)} '
             f'with{"" if asked["use_picture"] else "out"} the picture, {how}')
    found.append({
        'name': _title(path.stem), 'how': how, 'run': content['run'],
        'examples': content.get('examples', ()),
        'languages': len(content['languages']),
        'table': charts.Table(
            ['language', 'pictures', 'BLEU-4', 'chrF', 'CIDEr-D'],
            [[_language(code), f'{one["with_references"]:,}',
              *(_number(one, key, digits) for key, digits in (
                  ('bleu', 1), ('chrf', 1), ('cider_d', 3)))]
             for code, one in content['languages'].items()])})
  return found


def _result_files(workdir: pathlib.Path,
                  ) -> list[dict[pathlib.Path, dict[str, Any]]]:
  """Returns the results of each test set by path, retrieval.json's first."""
  paths = [workdir / 'retrieval.json',
           *sorted(workdir.glob('retrieval_*.json'))]
  found: dict[tuple[str, ...], dict[pathlib.Path, dict[str, Any]]] = {}
  for path in paths:
    if content := results.read(path):
      found.setdefault(tuple(content[key] for key in results.HEADER), {})[
          path] = content
  return list(found.values())


def _runs(workdir: pathlib.Path) -> dict[str, list[dict[str, float]]]:
  """Returns {stage: lines of its metrics.jsonl}, the workdir's own first."""
  folders = sorted(
      (path.parent for path in workdir.glob('*/metrics.jsonl')),
      key=lambda path: (STAGES.index(path.name) if path.name in STAGES
                        else len(STAGES), path.name))
  if (workdir / 'metrics.jsonl').exists():
    folders.insert(0, workdir.absolute())
  return {path.name: metrics.read(path / 'metrics.jsonl') for path in folders}


def rows_of(files: Sequence[Content]) -> dict[str, Content]:
  """Returns {'all' or 'all, re-ranked': entry} of files of one test set."""
  rows = {}
  for content in files:
    for setting, entry in content['settings'].items():
      name = setting
      if content is not files[0]:
        name += f', {MODES[content["mode"]]}'
      rows[name] = entry
  return rows


def _figures(content: Content) -> dict[str, Any]:
  """Returns the few numbers that a reader sees first."""
  setting, entry = list(content['settings'].items())[-1]
  values = [(results.mean(entry, names), language_names.name(names[0])
             if len(names) == 1 else f'mean of {len(names)} {title} languages')
            for title, names in results.language_groups(content).items()]
  return {'setting': setting, 'count': len(entry['languages']),
          'chance': results.mean(entry, list(entry['languages']), 'chance'),
          'values': [one for one in values if one[0] is not None]}


def _overview(files: Sequence[Content]) -> dict[str, Any]:
  """Returns settings × groups of languages, and settings × languages."""
  first, rows = files[0], rows_of(files)
  groups = results.language_groups(first)
  titles = [language_names.name(names[0]) if len(names) == 1
            else f'{len(names)} {title}' for title, names in groups.items()]
  languages = {name: [name] for names in groups.values() for name in names}
  full = list(zip(*_value_rows(rows, languages), strict=True))
  entry = next(iter(first['settings'].values()))
  notes = [(title, text) for entry in rows.values() for title, texts in (
      ('Not comparable with published numbers', entry.get('deviations', ())),
      ('Left out', entry.get('left_out', ())),
      ('Cut', filter(None, [results.cut_note(entry)]))) for text in texts]
  return {
      'dataset': first['dataset'], 'split': first['split'],
      'protocol': first['protocol'], 'mode': MODES[first['mode']],
      'count': next(iter(entry['languages'].values()))['num_images'],
      # Each once, whichever of the rows it is said of.
      'notes': list(dict.fromkeys(notes)),
      'groups': charts.Table(['setting', *titles], _value_rows(rows, groups)),
      'languages': charts.Table(['language', *rows, 'chance'], [
          [_language(name), *values]
          for name, values in zip(languages, full[1:], strict=True)])}


def _value_rows(rows: Mapping[str, Content],
                columns: Mapping[str, Sequence[str]]) -> list[list[str]]:
  """Returns rows of texts, the best value of a column marked; chance last."""
  values = results.means(rows, columns)
  best = [max((v for v in column if v is not None), default=None)
          for column in zip(*(values[row] for row in rows), strict=True)]
  return [[row, *('–' if v is None else
                  f'{"*" if row in rows and v == top else ""}{v:.1f}'
                  for v, top in zip(line, best, strict=True))]
          for row, line in values.items()]


def _language(code: str) -> str:
  return f'{language_names.name(code)} ({code})'


def _bars(files: Sequence[Content]) -> dict[str, Any]:
  """Returns bars of mean recall, a group for each language."""
  settings = files[0]['settings']
  # The re-ranked row beside the setting it re-ranks.
  shown = {name: entry for name, entry in rows_of(files).items()
           if name in settings or name.startswith(f'{list(settings)[-1]}, ')}
  return {
      'series': list(shown),
      'top': max(one['mean_recall'] for entry in shown.values()
                 for one in entry['languages'].values()) or 1.0,
      'groups': {
          title: {code: {
              'values': [entry['languages'].get(code, {}).get('mean_recall')
                         for entry in shown.values()],
              'chance': next(
                  entry['languages'][code]['chance']
                  for entry in shown.values() if code in entry['languages'])}
                  for code in names}
          for title, names in results.language_groups(files[0]).items()}}


def _consistency(rows: Mapping[str, Content]) -> charts.Table | None:
  """Returns mean rank variance and gap to English, a row a setting."""
  lines = []
  for row, entry in rows.items():
    variance = entry.get('mean_rank_variance') or {}
    gaps = [one['gap_to_english'] for name, one in entry['languages'].items()
            if name != 'en' and 'gap_to_english' in one]
    if variance or gaps:
      lines.append([
          row, *(_number(variance, direction, 0)
                 for direction in charts.DIRECTIONS),
          f'{sum(gaps) / len(gaps):+.1f}' if gaps else '–'])
  return charts.Table(['setting', *(f'variance, {title}'
                             for title in charts.DIRECTIONS.values()),
                'gap to English'], lines) if lines else None


def _examples(content: Mapping[str, Content], setting: str) -> dict[str, Any]:
  """Returns a setting's examples, else those evaluated last; {} for none."""
  if not content:
    return {}
  setting = setting if setting in content else list(content)[-1]
  return dict(content[setting]) | {
      'name': f'setting “{setting}” ({MODES[content[setting]["mode"]]})'}


def _opacities(weights: Sequence[float]) -> list[str]:
  """Returns how dark each region is: the weakest clear, the strongest 0.7."""
  low, high = min(weights), max(weights)
  return [f'{0.7 * (weight - low) / max(high - low, 1e-9):.2f}'
          for weight in weights]


def _metrics(files: Sequence[Content]) -> dict[str, Any]:
  """Returns all that was measured, tables of each setting.

  The last setting of the first file is printed on paper too.
  """
  return {'printed': list(files[0]['settings'])[-1], 'settings': {
      row: _metric_tables(entry['languages'])
      for row, entry in rows_of(files).items()}}


def _metric_tables(languages: Mapping[str, Content]) -> dict[str, charts.Table]:
  """Returns three tables: mean recall, and the metrics of each direction."""
  tables = {'': charts.Table(
      ['language', 'mean recall', '95 % interval', 'chance', 'gap to English'],
      [[_language(code), f'{one["mean_recall"]:.1f}',
        # '–' where it was written without.
        '–'.join(f'{value:.1f}' for value in one.get('interval', ())) or '–',
        f'{one["chance"]:.1f}', _number(one, 'gap_to_english', 1, sign='+')]
       for code, one in languages.items()])}
  for direction in protocols.DIRECTIONS:
    tables[charts.DIRECTIONS[direction].capitalize()] = charts.Table(
        ['language', 'queries', *(title for title, *_ in _METRICS)],
        [[_language(code), _number(one[direction], 'num_queries', 0),
          *(_number(one[direction], key, digits)
            for _, key, digits in _METRICS)]
         for code, one in languages.items()])
  return tables


def _number(values: Content, key: str, digits: int, *, sign: str = '') -> str:
  return f'{values[key]:{sign},.{digits}f}' if key in values else '–'


def _ablation(markdown: str) -> dict[str, Any]:
  """Returns an analysis: its title, table, and paragraphs around that."""
  rows, paragraphs = [], []
  for line in markdown.splitlines():
    if line.startswith('|'):
      row = [text.strip() for text in line.strip('|').split('|')]
      if not all(set(text) <= set('-:') for text in row):
        rows.append(row)
    elif line.strip():
      paragraphs.append(line.strip(' #'))
  title = paragraphs.pop(0) if markdown.startswith('#') else 'Ablation'
  return {'title': title, 'paragraphs': paragraphs,
          'table': charts.Table(rows[0], rows[1:])}


def _facts(content: Content | None, written: Sequence[Content],
           timings: Content) -> dict[str, Any]:
  """Returns how, where and when the numbers came about."""
  settings = content['settings'] if content else {}
  run = (list(settings.values()) or written)[-1].get('run', {})
  versions = ', '.join(f'{k} {v}' for k, v in run.get('versions', {}).items())
  minutes = {name: one['seconds'] / 60 for name, one in timings.items()
             if 'seconds' in one}
  return {
      'run': {key: run.get(key) for key in (
          'command', 'machine', 'commit', 'date')} | {'versions': versions},
      'settings': charts.Table(
          ['setting', 'seed', 'parameters', 'step', 'pairs scored',
           'seconds of evaluation'],
          [[name, str(entry.get('seed', '–')),
            f'{entry.get("parameters", 0):,}', str(entry['step']),
            f'{entry["pairs_scored"]:,}', f'{entry["seconds"]:.0f}']
           for name, entry in settings.items()]) if settings else None,
      'time': charts.Table(['stage', 'minutes'], [
          *([name, f'{one:.1f}'] for name, one in minutes.items()),
          ['*together', f'*{sum(minutes.values()):.1f}']])
              if timings else None}


_ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent))
_ENVIRONMENT.filters.update(language=language_names.name, opacities=_opacities)
_ENVIRONMENT.globals.update(charts=charts, zip=zip)


def _main() -> None:
  # Defined here: main.py and the recipes have a flag of that name too.
  workdir = flags.DEFINE_string(
      'workdir', None, 'Folder of the run whose report is rebuilt.',
      required=True)

  def main(argv):
    if len(argv) > 1:
      raise errors.UserError(f'unexpected argument {argv[1]!r}')
    print(write(workdir.value))

  console.run_main(main)


if __name__ == '__main__':
  _main()
