"""The files of results: retrieval.json and its neighbours.

A file is {protocol, dataset, split, mode, settings: {SETTING: {step,
checkpoint, pairs_scored, seconds, run, trained_languages, languages:
{LANGUAGE: cell}}}}; see `measures.measure` for a cell.
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

from input_pipeline import errors
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import ranking

HEADER = ('protocol', 'dataset', 'split')
# Percentages and ranks beyond this are noise.
_DIGITS = 4


def read(path: pathlib.Path) -> dict[str, Any]:
  """Returns the content of a JSON file; {} where there is none.

  Raises:
    UserError: the file is there, but no JSON object.
  """
  if not path.exists():
    return {}
  try:
    content = json.loads(path.read_text())
  except ValueError as error:
    raise errors.UserError(
        f'{path}: not JSON ({error}); move it away') from error
  if not isinstance(content, dict):
    raise errors.UserError(
        f'{path}: holds a {type(content).__name__}, not an object; move it '
        'away')
  return content


def write(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes a JSON file whole or not at all."""
  write_text(path, json.dumps(
      rounded(content), indent=1, ensure_ascii=False) + '\n')


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  draft.write_text(text, encoding='utf-8')
  os.replace(draft, path)


def rounded(value: Any) -> Any:
  """Returns the value with every float in it rounded."""
  if isinstance(value, Mapping):
    return {key: rounded(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [rounded(item) for item in value]
  return round(value, _DIGITS) if isinstance(value, float) else value


def path_for(workdir: pathlib.Path, header: Mapping[str, str],
             mode: str) -> pathlib.Path:
  """Returns the file that an evaluation goes to.

  `retrieval.json` holds one protocol, dataset and split in the workdir's own
  mode: that of the file, else of the workdir's config.json, else this one.
  Other modes go to `retrieval_MODE.json`, other sets to
  `retrieval_DATASET_SPLIT….json`: nothing is lost or mixed.

  Args:
    workdir: the run's.
    header: protocol, dataset and split.
    mode: 'dual', 'joint' or 'rerank'.
  """
  present = read(workdir / 'retrieval.json')
  config = read(workdir / 'config.json').get('evaluation', {})
  parts = ['retrieval']
  if present and any(present.get(key) != header[key] for key in HEADER):
    parts += [header['dataset'], header['split']]
  if mode != present.get('mode', config.get('mode', mode)):
    parts.append(mode)
  return workdir / f'{"_".join(parts)}.json'


def merge(content: Mapping[str, Any], header: Mapping[str, str], mode: str,
          setting: str, cell: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a file's content with the computed cells replaced.

  A language that was not evaluated now stays; where it comes from other
  weights or data, it keeps what these were.

  Args:
    content: of the file; {} for a new one.
    header: protocol, dataset and split.
    mode: of this evaluation.
    setting: its name.
    cell: the setting's, with `languages`.
  """
  settings = dict(content.get('settings', {}))
  before = settings.get(setting, {'languages': {}})
  # Version 1 did not know the last two: what it found is then another's.
  origin = {key: before.get(key)
            for key in ('step', 'checkpoint', 'weights', 'data')}
  is_same = all(cell.get(key) == value for key, value in origin.items())
  kept = {
      name: language if is_same else origin | language
      for name, language in before['languages'].items()}
  languages = kept | dict(cell['languages'])
  settings[setting] = dict(cell) | {
      'languages': languages,
      'pairs_scored': sum(
          one.get('pairs_scored', 0) for one in languages.values())}
  return dict(header) | {'mode': mode, 'settings': settings}


def update(workdir: pathlib.Path, header: Mapping[str, str], mode: str,
           setting: str, cell: Mapping[str, Any]) -> pathlib.Path:
  """Writes one setting's cells into the file they belong to; returns it."""
  path = path_for(workdir, header, mode)
  write(path, merge(read(path), header, mode, setting, cell))
  return path


def language_groups(content: Mapping[str, Any]) -> dict[str, list[str]]:
  """Returns {title: languages}: English, those trained on, the held out.

  Args:
    content: of a file; a language counts as trained on where any setting's
      captions were in it.
  """
  settings = content['settings'].values()
  languages = list(dict.fromkeys(
      name for cell in settings for name in cell['languages']))
  trained = {name for cell in settings
             for name in cell.get('trained_languages', ())}
  groups = {
      'en': [name for name in languages if name == 'en'],
      'supervised': [name for name in languages
                     if name in trained and name != 'en'],
      'held out': [name for name in languages
                   if name not in trained and name != 'en']}
  return {title: names for title, names in groups.items() if names}


def mean(cell: Mapping[str, Any], languages: Sequence[str],
         key: str = 'mean_recall') -> float | None:
  """Returns the mean of a metric over languages; None if one is missing."""
  cells = [cell['languages'].get(name) for name in languages]
  if not cells or None in cells:
    return None
  return sum(one[key] for one in cells) / len(cells)


def summary(content: Mapping[str, Any]) -> str:
  """Returns the table of settings × groups of languages, in Markdown."""
  groups = language_groups(content)
  titles = [name if len(names) == 1 else f'{len(names)} {name}'
            for name, names in groups.items()]
  lines = ['| setting | ' + ' | '.join(titles) + ' |',
           '|---|' + '---:|' * len(titles)]

  def row(title, cell, key):
    values = [mean(cell, names, key) for names in groups.values()]
    return f'| {title} | ' + ' | '.join(
        '–' if value is None else f'{value:.1f}' for value in values) + ' |'

  for setting, cell in content['settings'].items():
    lines.append(row(setting, cell, 'mean_recall'))
  # The largest cell knows the chance of most languages.
  largest = max(content['settings'].values(),
                key=lambda cell: len(cell['languages']))
  lines.append(row('chance', largest, 'chance'))
  return '\n'.join(lines)


def cut_note(cell: Mapping[str, Any]) -> str:
  """Returns a sentence on captions that were cut; '' where none was."""
  cut = [one for one in cell['languages'].values() if one.get('captions_cut')]
  if not cut:
    return ''
  count = sum(one['captions_cut'] for one in cut)
  lengths = ' or '.join(map(str, sorted({one['max_length'] for one in cut})))
  return (f'{count:,} captions have more than {lengths} ids and were cut '
          '(config.evaluation.max_length, or the positions that the model has)')


def table(cell: Mapping[str, Any], languages: Sequence[str]) -> str:
  """Returns the recalls of one setting in per cent, a line a language."""
  recalls = [f'R@{k}' for k in ranking.RECALLS]
  width = max(8, *map(len, languages))
  lines = [' ' * width + '   text → image       image → text',
           f'{"":{width}}' + 2 * ''.join(f'{name:>6}' for name in recalls)
           + '      mR  chance' + '     cut' * bool(cut_note(cell))]
  for name in languages:
    one = cell['languages'][name]
    values = ''.join(
        f'{one[direction][f"r{k}"]:6.1f}'
        for direction in protocols.DIRECTIONS for k in ranking.RECALLS)
    lines.append(f'{name:{width}}{values}{one["mean_recall"]:8.1f}'
                 f'{one["chance"]:8.1f}'
                 + (f'{one.get("captions_cut", 0):8,}' if cut_note(cell)
                    else ''))
  if len(languages) > 1:
    lines.append(f'{"mean":{width}}{"":36}{mean(cell, languages):8.1f}'
                 f'{mean(cell, languages, "chance"):8.1f}')
  return '\n'.join(lines)
