"""The files of results: retrieval.json, its neighbours, and the ranks.

A file is {protocol, dataset, split, mode, settings: {SETTING: entry}}, an entry
{step, checkpoint, pairs_scored, seconds, run, trained_languages, languages:
{LANGUAGE: what `ranking.measure` found}}. Beside it lies the rank of every
query, for intervals and tests between runs: ranks/RESULT.SETTING.npz holds
`LANGUAGE/DIRECTION/rank` and `LANGUAGE/DIRECTION/unit`, see
`statistics.Queries`.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
import json
import os
from typing import Any
import zipfile

import numpy as np

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import sharding
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import ranking
from m3p_jax.evaluation import statistics

HEADER = ('protocol', 'dataset', 'split')
# Percentages and ranks beyond this are noise.
_DIGITS = 4


def read(path: paths.Path) -> dict[str, Any]:
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


def write(path: paths.Path, content: Mapping[str, Any]) -> None:
  """Writes a JSON file whole or not at all."""
  write_text(path, json.dumps(
      rounded(content), indent=1, ensure_ascii=False) + '\n')


def write_text(path: paths.Path, text: str) -> None:
  """Writes a file whole or not at all; of several processes the first does.
  """
  if sharding.is_first():
    with draft(path) as file:
      file.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def draft(path: paths.Path) -> Iterator[paths.Path]:
  """Gives a file to write, which becomes `path` when the block ends well."""
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.with_name(f'.{path.name}.{os.getpid()}')
  yield file
  if not paths.is_url(file):
    # Else a power cut may leave the name without its content.
    with file.open('rb') as written:
      os.fsync(written.fileno())
  file.replace(path)


def rounded(value: Any) -> Any:
  """Returns the value with every float in it rounded."""
  if isinstance(value, Mapping):
    return {key: rounded(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [rounded(item) for item in value]
  return round(value, _DIGITS) if isinstance(value, float) else value


def path_for(workdir: paths.Path, header: Mapping[str, str],
             mode: str) -> paths.Path:
  """Returns the file that an evaluation goes to.

  `retrieval.json` holds one protocol, dataset and split in the workdir's own
  mode: that of the file, else of the workdir's config.json, else this one.
  Other modes go to `retrieval_MODE.json`, other sets to
  `retrieval_DATASET_SPLIT….json`, with the protocol behind it where that is
  another one's: nothing is lost or mixed.
  """
  present = read(workdir / 'retrieval.json')
  config = read(workdir / 'config.json').get('evaluation', {})
  parts = ['retrieval']
  if present and any(present.get(key) != header[key] for key in HEADER):
    parts += [header['dataset'], header['split']]
  if mode != present.get('mode', config.get('mode', mode)):
    parts.append(mode)
  path = workdir / f'{"_".join(parts)}.json'
  if read(path).get('protocol', header['protocol']) == header['protocol']:
    return path
  return path.with_stem(f'{path.stem}_{header["protocol"]}')


def merge(content: Mapping[str, Any], header: Mapping[str, str], mode: str,
          setting: str, entry: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a file's content with what was computed replaced.

  A language that was not evaluated now stays; where it comes from other
  weights or data, it keeps what these were.
  """
  settings = dict(content.get('settings', {}))
  before = settings.get(setting, {'languages': {}})
  # Version 1 did not know the last two: what it found is then another's.
  origin = {key: before.get(key)
            for key in ('step', 'checkpoint', 'weights', 'data')}
  is_same = all(entry.get(key) == value for key, value in origin.items())
  kept = {
      name: language if is_same else origin | language
      for name, language in before['languages'].items()}
  languages = kept | dict(entry['languages'])
  settings[setting] = dict(entry) | {
      'languages': languages,
      'pairs_scored': sum(
          one.get('pairs_scored', 0) for one in languages.values())}
  return dict(header) | {'mode': mode, 'settings': settings}


def update(workdir: paths.Path, header: Mapping[str, str], mode: str,
           setting: str, entry: Mapping[str, Any]) -> paths.Path:
  """Writes one setting's entry into the file it belongs to; returns it."""
  path = path_for(workdir, header, mode)
  write(path, merge(read(path), header, mode, setting, entry))
  return path


def ranks_path(result: paths.Path, setting: str) -> paths.Path:
  """Returns the file of ranks of a setting of a result's file."""
  return result.parent / 'ranks' / f'{result.stem}.{setting}.npz'


def update_ranks(result: paths.Path, setting: str,
                 languages: Mapping[str, statistics.Language]) -> None:
  """Writes the languages' ranks beside those of others, whole or not at all."""
  content = dict(load_ranks(result, setting)) | dict(languages)
  arrays: dict[str, Any] = {
      f'{name}/{direction}/{field}': value.astype(np.int32)
      for name, one in content.items()
      for direction, queries in one.items()
      for field, value in (('rank', queries.rank_Q), ('unit', queries.unit_Q))}
  content_bytes = io.BytesIO()
  np.savez_compressed(content_bytes, **arrays)
  with draft(ranks_path(result, setting)) as path:
    path.write_bytes(content_bytes.getvalue())


def load_ranks(result: paths.Path,
               setting: str) -> dict[str, dict[str, statistics.Queries]]:
  """Returns {language: queries}; {} where none are kept.

  Raises:
    UserError: the file is broken.
  """
  path = ranks_path(result, setting)
  if not path.exists():
    return {}
  try:
    with paths.load(path) as arrays:
      names = {name.split('/')[0] for name in arrays}
      return {
          name: {direction: statistics.Queries(
              arrays[f'{name}/{direction}/rank'],
              arrays[f'{name}/{direction}/unit'])
                 for direction in protocols.DIRECTIONS}
          for name in sorted(names)}
  except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
    raise errors.UserError(
        f'{path}: not the ranks of an evaluation ({error}); delete it and '
        'evaluate again') from error


def language_groups(content: Mapping[str, Any]) -> dict[str, list[str]]:
  """Returns {title: languages}: English, those trained on, the held out.

  A language counts as trained on where any setting's captions were in it.
  """
  settings = content['settings'].values()
  languages = list(dict.fromkeys(
      name for entry in settings for name in entry['languages']))
  trained = {name for entry in settings
             for name in entry.get('trained_languages', ())}
  groups = {
      'en': [name for name in languages if name == 'en'],
      'supervised': [name for name in languages
                     if name in trained and name != 'en'],
      'held out': [name for name in languages
                   if name not in trained and name != 'en']}
  return {title: names for title, names in groups.items() if names}


def mean(entry: Mapping[str, Any], languages: Sequence[str],
         key: str = 'mean_recall') -> float | None:
  """Returns the mean of a metric over languages; None if one is missing."""
  found = [entry['languages'].get(name) for name in languages]
  if not found or None in found:
    return None
  return sum(one[key] for one in found) / len(found)


def means(settings: Mapping[str, Mapping[str, Any]],
          columns: Mapping[str, Sequence[str]],
          ) -> dict[str, list[float | None]]:
  """Returns {setting: its mean of each column's languages}, 'chance' last."""
  # The largest entry knows the chance of most languages.
  largest = max(settings.values(), key=lambda entry: len(entry['languages']))
  return {
      setting: [mean(entry, names) for names in columns.values()]
      for setting, entry in settings.items()} | {
          'chance': [mean(largest, names, 'chance')
                     for names in columns.values()]}


def summary(content: Mapping[str, Any]) -> str:
  """Returns the table of settings × groups of languages, in Markdown."""
  groups = language_groups(content)
  titles = [name if len(names) == 1 else f'{len(names)} {name}'
            for name, names in groups.items()]
  rows = [[setting, *('–' if value is None else f'{value:.1f}'
                      for value in values)]
          for setting, values in means(content['settings'], groups).items()]
  lines = [f'| {" | ".join(row)} |' for row in (['setting', *titles], *rows)]
  return '\n'.join([lines[0], '|---|' + '---:|' * len(titles), *lines[1:]])


def cut_note(entry: Mapping[str, Any]) -> str:
  """Returns a sentence on captions that were cut; '' where none was."""
  cut = [one for one in entry['languages'].values() if one.get('captions_cut')]
  if not cut:
    return ''
  count = sum(one['captions_cut'] for one in cut)
  lengths = ' or '.join(map(str, sorted({one['max_length'] for one in cut})))
  return (f'{count:,} captions have more than {lengths} ids and were cut '
          '(config.evaluation.max_length, or the positions that the model has)')


def table(entry: Mapping[str, Any], languages: Sequence[str]) -> str:
  """Returns the recalls of one setting in per cent, a line a language."""
  recalls = [f'R@{k}' for k in ranking.RECALLS]
  width = max(8, *map(len, languages))
  is_cut = bool(cut_note(entry))
  lines = [' ' * width + '   text → image       image → text',
           f'{"":{width}}' + 2 * ''.join(f'{name:>6}' for name in recalls)
           + '      mR  chance' + '     cut' * is_cut]
  for name in languages:
    one = entry['languages'][name]
    values = ''.join(
        f'{one[direction][f"r{k}"]:6.1f}'
        for direction in protocols.DIRECTIONS for k in ranking.RECALLS)
    cut = f'{one.get("captions_cut", 0):8,}' if is_cut else ''
    lines.append(f'{name:{width}}{values}{one["mean_recall"]:8.1f}'
                 f'{one["chance"]:8.1f}{cut}')
  if len(languages) > 1:
    lines.append(f'{"mean":{width}}{"":36}{mean(entry, languages):8.1f}'
                 f'{mean(entry, languages, "chance"):8.1f}')
  return '\n'.join(lines)
