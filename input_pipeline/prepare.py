"""Prepares a dataset into records: read, check, tokenise, extract features.

python -m input_pipeline.prepare --dataset=NAME --data_dir=DIR
"""

from collections.abc import Mapping, Sequence
import contextlib
import fcntl
import importlib
import io
import json
import pathlib
import pkgutil
import shutil
from typing import Any

from absl import flags
from absl import logging

from input_pipeline import builder as builder_lib
from input_pipeline import choices
from input_pipeline import datasets
from input_pipeline import errors
from input_pipeline import extracted
from input_pipeline import languages as languages_lib
from input_pipeline import tokenizer as tokenizer_lib

MANIFEST = 'manifest.json'
# Beside these, any file of a format in `formats/`.
FEATURES = ('grid',)
STORAGE = ('float16',)
# Those that a dataset in `raw_dir` is made of, beside the pictures.
_TEXT_FILES = ('.jsonl', '.json', '.txt', '.gz', '.csv', '.tsv', '.pkl', '')


def names() -> list[str]:
  """Returns the names of all datasets: the files of `datasets/`."""
  return sorted(m.name for m in pkgutil.iter_modules(datasets.__path__))


def _options(builder_class, raw_dir: str, **options) -> dict[str, Any]:
  """Returns what decides the records' content, as JSON can hold it."""
  if options['features_format']:
    options |= extracted.stamp(
        options['features_format'], options['features'])
  tokenizer = tokenizer_lib.load()
  options |= {'version': str(builder_class.VERSION),
              'tokenizer': tokenizer.sha256}
  if raw_dir:
    folder = pathlib.Path(raw_dir)
    options |= {'raw_dir': str(folder.resolve()), 'changed': max(
        (path.stat().st_mtime_ns for path in folder.rglob('*')
         if path.suffix.lower() in _TEXT_FILES), default=0)}
  return options


def _is_complete(folder: pathlib.Path, options: Mapping[str, Any]) -> bool:
  try:
    found = json.loads((folder / MANIFEST).read_text())
  except (OSError, json.JSONDecodeError):
    return False
  return found.get('options') == options


def _manifest(builder, dataset: str, options: Mapping[str, Any],
              ) -> dict[str, Any]:
  manifest = {
      'dataset': dataset, 'options': options,
      'tokenizer': {'source': builder.tokenizer.source,
                    'sha256': builder.tokenizer.sha256},
      'languages': sorted(builder.languages),
      'counts': {name: split.num_examples
                 for name, split in builder.info.splits.items()},
      'skipped': dict(sorted(builder.skipped.items()))}
  if isinstance(builder, builder_lib.ImageTextBuilder):
    manifest['feature_extractor'] = builder.extractor.manifest
    if isinstance(builder.extractor, extracted.ExtractedRegions):
      manifest['features'] = builder.extractor.report()
    manifest['normalisation'] = 'none: the model L2-normalises'
  return manifest


def prepare(dataset: str, data_dir: str, *, raw_dir: str = '', limit: int = 0,
            languages: Sequence[str] = (), features: str = 'grid',
            features_format: str = '', storage: str = 'float16',
            strict: bool = False) -> pathlib.Path:
  """Returns the folder of a prepared dataset, made unless it is there.

  It appears whole or not at all; one that was there before stays until then.

  Args:
    dataset: a file of `datasets/`.
    data_dir: where prepared datasets are kept.
    raw_dir: the user's own pictures, for `captions`.
    limit: items at most; 0 = all.
    languages: public codes; none = the dataset's default.
    features: 'grid': EfficientNet's grid, pooled; or the file or folder of
      extracted regions.
    features_format: how to read that: a file of `formats/`.
    storage: 'float16'.
    strict: an unusable item is an error, not a counted skip.

  Raises:
    UserError: an unknown name, an unusable item with `strict`, nothing usable
      in the dataset, or a folder that cannot be written.
  """
  choices.check('--dataset', dataset, names())
  choices.check('--storage', storage, STORAGE)
  languages_lib.check(languages)
  module = importlib.import_module(f'input_pipeline.datasets.{dataset}')
  if issubclass(module.Builder, builder_lib.ImageTextBuilder):
    extracted.check_flags(features, features_format, FEATURES)
  elif features_format or features != 'grid':
    raise errors.UserError(f'--features: {dataset} has no pictures')
  options = _options(
      module.Builder, raw_dir, limit=limit, languages=sorted(set(languages)),
      features=features, features_format=features_format, storage=storage,
      strict=strict)
  folder = pathlib.Path(data_dir) / dataset
  if _is_complete(folder, options):
    logging.info('%s is already prepared in %s', dataset, folder)
    return folder
  try:
    with _lock(folder):
      if not _is_complete(folder, options):
        _write(folder, module.Builder, options, builder_lib.Options(
            raw_dir=raw_dir, languages=tuple(languages), limit=limit,
            strict=strict, features=features, features_format=features_format))
  except OSError as error:
    raise errors.UserError(
        f'cannot prepare {dataset} in --data_dir={data_dir}: {error}'
    ) from error
  return folder


@contextlib.contextmanager
def _lock(folder: pathlib.Path):
  """Lets one process at a time prepare a folder."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with open(folder.with_name(f'.{folder.name}.lock'), 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _write(folder: pathlib.Path, builder_class, key: Mapping[str, Any],
           options: builder_lib.Options) -> None:
  """Prepares a dataset beside its folder, then puts it in place."""
  partial = folder.with_name(f'.{folder.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir()
  if issubclass(builder_class, builder_lib.ImageTextBuilder):
    options.thumbnails = partial / 'thumbnails'
    options.thumbnails.mkdir()
  try:
    builder = builder_class(options=options, data_dir=partial)
    with _quiet():
      builder.prepare()
    manifest = _manifest(builder, folder.name, key)
    if not manifest['counts']:
      raise errors.UserError(
          f'{folder.name} has no usable item; skipped: '
          f'{manifest["skipped"] or "none"}')
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
    shutil.rmtree(partial / 'downloads', ignore_errors=True)
    _replace(folder, partial)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  for reason, count in manifest['skipped'].items():
    logging.warning('%s: skipped %d: %s', folder.name, count, reason)


@contextlib.contextmanager
def _quiet():
  """Leaves TFDS's reports out: stdout is for results, stderr has a bar."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.WARNING)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


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
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  args = flags.FLAGS
  for name in ('dataset', 'data_dir'):
    if not args[name].value:
      raise errors.UserError(f'--{name} is missing')
  folder = prepare(
      args.dataset, args.data_dir, raw_dir=args.raw_dir, limit=args.limit,
      languages=args.languages, features=args.features,
      features_format=args.features_format, storage=args.storage,
      strict=args.strict)
  manifest = json.loads((folder / MANIFEST).read_text())
  print(f'{folder}: {manifest["counts"]}, skipped {manifest["skipped"]}')


def _define_flags() -> None:
  flags.DEFINE_string('dataset', '', f'One of: {", ".join(names())}.')
  flags.DEFINE_string('data_dir', '', 'Folder of prepared datasets.')
  flags.DEFINE_string('raw_dir', '', "Folder of the user's own files: for "
                      '--dataset=captions, captions.jsonl and pictures.')
  flags.DEFINE_integer('limit', 0, 'Items at most; 0 = all.', lower_bound=0)
  flags.DEFINE_list('languages', [], 'Codes, as en,de; none = those that the '
                    'dataset takes by itself.')
  flags.DEFINE_string(
      'features', 'grid', f'One of: {", ".join(FEATURES)}; or a file or folder '
      'of extracted regions, with --features_format.')
  flags.DEFINE_string(
      'features_format', '', 'What --features holds: '
      f'{", ".join(extracted.names())}.')
  flags.DEFINE_string('storage', 'float16', f'One of: {", ".join(STORAGE)}.')
  flags.DEFINE_bool('strict', False, 'Unusable items are errors.')


if __name__ == '__main__':
  _define_flags()
  errors.run_main(main)
