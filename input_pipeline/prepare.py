"""Prepares a dataset into records: read, check, tokenise, extract features.

python -m input_pipeline.prepare --dataset=NAME --data_dir=DIR

A dataset grows in `.NAME.partial`, beside the place that it will be put in.
That folder holds the finished shards and what they are made of; it stays when
a run is killed, and goes when other options are asked for.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import fcntl
import importlib
import io
import json
import os
import pathlib
import pkgutil
import shutil
import tempfile
import time
from typing import Any

from absl import flags
from absl import logging
import tensorflow_datasets as tfds

from input_pipeline import builder as builder_lib
from input_pipeline import console
from input_pipeline import copies
from input_pipeline import datasets
from input_pipeline import errors
from input_pipeline import extracted
from input_pipeline import items as items_lib
from input_pipeline import known
from input_pipeline import languages as languages_lib
from input_pipeline import manifest as manifest_lib
from input_pipeline import paths
from input_pipeline import records
from input_pipeline.vision import extractors

MANIFEST, SKIPPED = 'manifest.json', 'skipped.jsonl'
_OPTIONS = 'options.json'
# Fields of `builder.Options` that are flags.
_OPTION_FLAGS = ('raw_dir', 'languages', 'limit', 'strict', 'features',
                 'features_format', 'detector', 'storage', 'fields')
_TFDS = 'tfds'
# Items of the two runs by which a third is estimated.
_FEW, _MEASURED = 50, 500
# Share of a user's own items that may be unusable.
MAX_BAD = 0.01


def names() -> list[str]:
  """Returns the names of all datasets: the files of `datasets/`."""
  return sorted(module.name for module in pkgutil.iter_modules(
      datasets.__path__) if not module.name.startswith('_'))


def key_of(dataset: str, data_dir: str | os.PathLike[str],
           **options: Any) -> dict[str, Any]:
  """Returns what a dataset's records are made from, as its manifest has it.

  Args:
    **options: fields of `builder.Options`.
  """
  builder_class, folder, chosen = _checked(dataset, data_dir, options)
  return known.key_of(builder_class, folder, chosen)[0]


def read_key(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns what the records of a folder were made from.

  None where there are none, or not all that were.
  """
  key = _read_options(folder)
  return key if key is None or known.is_whole(folder) else None


def _read_options(folder: pathlib.Path) -> dict[str, Any] | None:
  try:
    found = json.loads((folder / MANIFEST).read_text())['options']
  except (OSError, ValueError, KeyError, TypeError):  # Another's manifest.
    return None
  return found if isinstance(found, dict) else None


def prepare(dataset: str, data_dir: str, *, max_bad: float = MAX_BAD,
            beam: str = '', **options: Any) -> pathlib.Path:
  """Returns the folder of a prepared dataset, made unless it is there.

  It appears whole or not at all; one that was there before stays until then.
  A run that was killed goes on where it was, from its finished shards.

  Args:
    dataset: a file of `datasets/`.
    data_dir: where prepared datasets are kept.
    max_bad: share of unusable items above which files of the user's own are
      refused; packages that are fetched hold what they hold.
    beam: options of Apache Beam, which then makes the shards on any runner,
      as 'runner=DirectRunner,direct_num_workers=4'; '' = this process does.
    **options: fields of `builder.Options`.

  Raises:
    UserError: an unknown name, an unusable item with `strict`, nothing usable
      in the dataset or less than `max_bad` allows, or a folder that cannot be
      written.
  """
  builder_class, folder, chosen = _checked(dataset, data_dir, options)
  try:
    key, items = known.key_of(builder_class, folder, chosen)
    if read_key(folder) == key:
      logging.info('%s is already prepared in %s', dataset, folder)
      return folder
    with _lock(folder) as has_waited:
      if has_waited:  # For hours, perhaps.
        key, items = known.key_of(builder_class, folder, chosen)
      if read_key(folder) != key:
        _write(folder, builder_class, key, items, chosen, beam, max_bad)
  except OSError as error:
    raise errors.UserError(
        f'cannot prepare {dataset} in --data_dir={data_dir}: {error}. Shards '
        'that are finished stay; the same command goes on from them'
    ) from error
  return folder


def _checked(dataset: str, data_dir: str | os.PathLike[str],
             options: Mapping[str, Any],
             ) -> tuple[Any, pathlib.Path, builder_lib.Options]:
  """Returns a dataset's builder, its folder and its options.

  `tfds:NAME` is the set NAME that TFDS has prepared.

  Raises:
    UserError: there is no such dataset, or options do not fit it.
  """
  module, _, source = dataset.partition(':')
  errors.check_choice('--dataset', module, names())
  if (module == _TFDS) != bool(source):
    raise errors.UserError(
        f'--dataset is {dataset!r}; allowed: {_TFDS}:NAME of a set that TFDS '
        'has prepared, or a dataset without a colon')
  chosen = builder_lib.Options(**options, source=source)
  builder_class = importlib.import_module(
      f'input_pipeline.datasets.{module}').Builder
  errors.check_choice('--storage', chosen.storage, records.STORAGE)
  languages_lib.check(chosen.languages)
  if issubclass(builder_class, builder_lib.ImageTextBuilder):
    extracted.check_flags(
        chosen.features, chosen.features_format, extractors.EXTRACTORS)
  elif chosen.features_format or chosen.features != 'grid':
    raise errors.UserError(f'--features: {dataset} has no pictures')
  if (bool(chosen.detector) > bool(chosen.features_format)
      or bool(chosen.fields) > bool(source)):
    raise errors.UserError('--detector is for --features_format, and --fields '
                           'for --dataset=tfds:NAME')
  return builder_class, paths.local(
      data_dir, '--data_dir') / (source or module), chosen


def estimate(dataset: str, **options: Any) -> tuple[int, float, float]:
  """Returns a set's items, its bytes when it is prepared, and hours for that.

  Hours of one process here, by the first 500 items, of which nothing stays.
  What every run needs to begin is found by a run with fewer.

  Args:
    **options: fields of `builder.Options` but `limit`.
  """
  builder_class, _, chosen = _checked(dataset, '', options)
  total = sum(1 for _ in builder_class.list_items(chosen))
  runs = []
  for limit in (_FEW, _MEASURED):
    with tempfile.TemporaryDirectory() as place:
      start = time.perf_counter()
      folder = prepare(dataset, place, max_bad=1, **options | {'limit': limit})
      runs.append((min(limit, total), time.perf_counter() - start, sum(
          path.stat().st_size for path in folder.rglob('*')
          if path.is_file() and not path.is_symlink())))
  (few, few_seconds, few_bytes), (many, seconds, size) = runs
  share = (total - many) / max(1, many - few)
  return (total, size + share * (size - few_bytes),
          (seconds + share * (seconds - few_seconds)) / 3600)


def _write(folder: pathlib.Path, builder_class, key: Mapping[str, Any],
           items: Any, options: builder_lib.Options, beam: str,
           max_bad: float) -> None:
  """Prepares a dataset beside its folder, then puts it in place."""
  download_config = _beam_config(beam) if beam else None
  # What finished shards and records of before must have in common with these.
  part = items_lib.recipe if builder_class.remembers(options) else dict
  partial = _begin(folder, key, part, builder_class.name)
  has_pictures = issubclass(builder_class, builder_lib.ImageTextBuilder)
  options.shards = partial / 'shards'
  options.copies = partial if has_pictures else None
  options.before = _like(folder, key, part)
  try:
    builder = builder_class(options=options, data_dir=partial)
    builder.listed = items if isinstance(items, list) else None
    with _quiet():
      builder.download_and_prepare(download_config=download_config)
    manifest = manifest_lib.describe(builder, folder.name, key)
    if not manifest['counts']:
      raise errors.UserError(
          f'{folder.name} has no usable item; skipped: '
          f'{manifest["skipped"] or "none"}')
  except errors.UserError:
    # What is wrong is in the data: nothing of it can be used again.
    shutil.rmtree(partial, ignore_errors=True)
    raise
  # The shards stay: the same command with another --max_bad takes them.
  manifest_lib.check_share(builder, manifest, max_bad)
  (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
  _tidy(partial, builder, has_pictures=has_pictures)
  _replace(folder, partial)
  for reason, count in manifest['skipped'].items():
    logging.warning('%s: skipped %d: %s (see %s)', folder.name, count, reason,
                    folder / SKIPPED)
  if options.raw_dir and key['files'] != known.files_of(
      options, items, folder):
    logging.warning('%s: files in %s changed while they were read; the same '
                    'command prepares it again', folder.name, options.raw_dir)


def _like(folder: pathlib.Path, key: Mapping[str, Any],
          part: Callable[[Mapping[str, Any]], Mapping[str, Any]],
          ) -> list[pathlib.Path]:
  """Returns the datasets whose records may be used again for a folder's.

  That itself, as it was, and those beside it of the same files.

  Args:
    part: returns what of a key they must have in common.
  """
  made = {one: _read_options(one) or {} for one in (folder, *sorted(
      path.parent for path in folder.parent.glob(f'[!.]*/{MANIFEST}')))}
  return [one for one, before in made.items() if part(before) == part(key) and (
      one == folder or before.get('raw_dir') == key.get('raw_dir'))]


def _beam_config(options: str) -> tfds.download.DownloadConfig:
  try:
    from input_pipeline import beam
  except ModuleNotFoundError as error:
    raise errors.UserError(
        f'--beam_pipeline_options is {options!r}, but {error.name} is not '
        'installed; make an environment with requirements-beam.txt'
    ) from error
  return beam.parse_options(options)


@contextlib.contextmanager
def _quiet():
  """Leaves TFDS's reports out: stdout is for results, stderr has a bar."""
  tfds.disable_progress_bar()  # Its bars would know no total.
  with console.hold_library_logs(), contextlib.redirect_stdout(io.StringIO()):
    yield


@contextlib.contextmanager
def _lock(folder: pathlib.Path):
  """Lets one process at a time prepare a folder; gives whether it waited."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with open(folder.with_name(f'.{folder.name}.lock'), 'w') as file:
    has_waited = False
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      has_waited = True
      fcntl.flock(file, fcntl.LOCK_EX)
    yield has_waited


def _begin(folder: pathlib.Path, key: Mapping[str, Any],
           part: Callable[[Mapping[str, Any]], Mapping[str, Any]],
           name: str) -> pathlib.Path:
  """Returns the folder beside `folder` to work in, with what is done already.

  Args:
    part: returns what of a key decides whether finished shards can be used.
    name: of TFDS's builder.
  """
  partial = folder.with_name(f'.{folder.name}.partial')
  saved = partial / _OPTIONS
  if not saved.exists() or part(json.loads(saved.read_text())) != part(key):
    shutil.rmtree(partial, ignore_errors=True)
  # Drafts that a killed run has left, TFDS's and ours.
  shutil.rmtree(partial / name, ignore_errors=True)
  for name in ('shards', *copies.FOLDERS):
    (partial / name).mkdir(parents=True, exist_ok=True)
  for path in partial.glob('shards/*.draft-*'):
    path.unlink()
  draft = saved.with_suffix('.draft')
  draft.write_text(json.dumps(key))
  draft.rename(saved)
  return partial


def _tidy(partial: pathlib.Path, builder: Any, *, has_pictures: bool) -> None:
  """Lists what was left out, and deletes what only making it needed."""
  # Names that are not UTF-8 stay escaped.
  with open(partial / SKIPPED, 'w', encoding='utf-8',
            errors='backslashreplace') as file:
    for split, report in builder.reports.items():
      for item, reason in report.skipped:
        file.write(json.dumps({'split': split, 'item': item, 'reason': reason},
                              ensure_ascii=False) + '\n')
  (partial / _OPTIONS).unlink()
  for name in ('shards', 'downloads',
               *(() if has_pictures else copies.FOLDERS)):
    shutil.rmtree(partial / name, ignore_errors=True)


def _replace(folder: pathlib.Path, partial: pathlib.Path) -> None:
  """Puts the finished folder in place; the one before goes last."""
  old = folder.with_name(f'.{folder.name}.old')
  shutil.rmtree(old, ignore_errors=True)
  if folder.exists():
    folder.rename(old)
  partial.rename(folder)
  shutil.rmtree(old, ignore_errors=True)


def main(argv: Sequence[str]) -> None:
  """Prepares the dataset of the flags and prints its counts."""
  console.check_flags(argv, ('dataset', 'data_dir'))
  args = flags.FLAGS
  options = {name: args[name].value for name in _OPTION_FLAGS}
  if args.estimate:
    total, size, hours = estimate(args.dataset, **options)
    print(f'{args.dataset}: {total:,} items, {size / 1e9:,.3g} GB, '
          f'{hours:,.3g} hours of one host')
    return
  folder = prepare(args.dataset, args.data_dir, max_bad=args.max_bad,
                   beam=args.beam_pipeline_options, **options)
  manifest = json.loads((folder / MANIFEST).read_text())
  print(f'{folder}: {manifest["counts"]}, skipped {manifest["skipped"]}')


def _define_flags() -> None:
  flags.DEFINE_string('dataset', '', f'One of: {", ".join(names())}; tfds:NAME '
                      'is a set that TFDS has prepared.')
  flags.DEFINE_string('data_dir', '', 'Folder of prepared datasets.')
  flags.DEFINE_string('raw_dir', '', "Folder of the user's own files: for "
                      '--dataset=captions, captions.jsonl and pictures.')
  flags.DEFINE_integer('limit', 0, 'Items at most; 0 = all.', lower_bound=0)
  flags.DEFINE_list('languages', [], 'Codes, as en,de; none = those that the '
                    'dataset takes by itself.')
  flags.DEFINE_string(
      'features', 'grid', f'One of: {", ".join(extractors.EXTRACTORS)}; or a '
      'file or folder of extracted regions, with --features_format.')
  flags.DEFINE_string(
      'features_format', '', 'What --features holds: '
      f'{", ".join(extracted.names())}.')
  flags.DEFINE_string('detector', '', 'What extracted --features: files of one '
                      'detector go together, whatever their format.')
  flags.DEFINE_list('fields', [], 'Of tfds:NAME: image=NAME,id=NAME,en=NAME …; '
                    'none = as types and names suggest.')
  flags.DEFINE_bool('estimate', False, 'Only say how many items there are, '
                    'what disk and what time they need, by the first 500.')
  flags.DEFINE_string('storage', 'float16', 'How features are stored, one of: '
                      f'{", ".join(records.STORAGE)}; int8 takes half.')
  flags.DEFINE_string('beam_pipeline_options', '', 'Prepare with Apache Beam: '
                      'runner=DirectRunner,direct_num_workers=4 (see '
                      'docs/data.md); none = in this process.')
  flags.DEFINE_bool('strict', False, 'Unusable items are errors.')
  flags.DEFINE_float(
      'max_bad', MAX_BAD, "Share of a user's own items that may be unusable: "
      'they are skipped, counted and listed.', 0, 1)


if __name__ == '__main__':
  _define_flags()
  console.run_main(main)
