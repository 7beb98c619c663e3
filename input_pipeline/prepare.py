"""Prepares a dataset into records: read, check, tokenise, extract features.

python -m input_pipeline.prepare --dataset=NAME --data_dir=DIR
"""

from collections.abc import Sequence
import importlib
import json
import pathlib
import pkgutil
import shutil

from absl import flags
from absl import logging

from input_pipeline import builder as builder_lib
from input_pipeline import choices
from input_pipeline import datasets
from input_pipeline import errors
from input_pipeline import languages as languages_lib

MANIFEST = 'manifest.json'
# More ways to get features come with the importers of extracted regions.
FEATURES = ('grid',)
STORAGE = ('float16',)


def names() -> list[str]:
  """Returns the names of all datasets: the files of `datasets/`."""
  return sorted(m.name for m in pkgutil.iter_modules(datasets.__path__))


def _key(dataset, raw_dir, limit, languages, features, storage):
  """Returns what decides the records' content, as JSON can hold it."""
  key = dict(dataset=dataset, limit=limit, languages=sorted(languages),
             features=features, storage=storage)
  if raw_dir:
    source = pathlib.Path(raw_dir) / 'captions.jsonl'
    changed = source.stat().st_mtime_ns if source.is_file() else 0
    key.update(raw_dir=str(pathlib.Path(raw_dir).resolve()), changed=changed)
  return key


def _is_complete(folder: pathlib.Path, key) -> bool:
  try:
    found = json.loads((folder / MANIFEST).read_text())
  except (OSError, json.JSONDecodeError):
    return False
  return found.get('options') == key


def _manifest(builder, key) -> dict:
  manifest = {
      'dataset': key['dataset'], 'options': key,
      'tokenizer': {'source': builder.tokenizer.source,
                    'sha256': builder.tokenizer.sha256},
      'languages': sorted(builder.options.languages or languages_lib.codes()),
      'counts': {name: split.num_examples
                 for name, split in builder.info.splits.items()},
      'skipped': dict(builder.skipped)}
  if isinstance(builder, builder_lib.ImageTextBuilder):
    manifest['feature_extractor'] = builder.extractor.manifest
    manifest['normalisation'] = 'none: the model L2-normalises'
  return manifest


def prepare(dataset: str, data_dir: str, *, raw_dir: str = '', limit: int = 0,
            languages: Sequence[str] = (), features: str = 'grid',
            storage: str = 'float16', strict: bool = False) -> pathlib.Path:
  """Returns the folder of a prepared dataset, made unless it is there.

  Args:
    dataset: a file of `datasets/`.
    data_dir: where prepared datasets are kept.
    raw_dir: the user's own pictures, for `captions`.
    limit: items at most; 0 = all.
    languages: public codes; none = all that the dataset has.
    features: 'grid': EfficientNet's grid, pooled.
    storage: 'float16'.
    strict: an unusable item is an error, not a counted skip.

  Raises:
    UserError: an unknown name, or nothing usable in the dataset.
  """
  choices.check('--dataset', dataset, names())
  choices.check('--features', features, FEATURES)
  choices.check('--storage', storage, STORAGE)
  languages_lib.check(languages)
  folder = pathlib.Path(data_dir) / dataset
  key = _key(dataset, raw_dir, limit, languages, features, storage)
  if _is_complete(folder, key):
    logging.info('%s is already prepared in %s', dataset, folder)
    return folder

  partial = folder.with_name(f'.{dataset}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  (partial / 'thumbnails').mkdir(parents=True)
  module = importlib.import_module(f'input_pipeline.datasets.{dataset}')
  builder = module.Builder(
      options=builder_lib.Options(
          raw_dir=raw_dir, languages=tuple(languages), limit=limit,
          strict=strict, thumbnails=partial / 'thumbnails'),
      data_dir=partial)
  builder.download_and_prepare()
  manifest = _manifest(builder, key)
  if not sum(manifest['counts'].values()):
    raise errors.UserError(
        f'{dataset} has no usable item; skipped: {manifest["skipped"]}')
  (partial / MANIFEST).write_text(json.dumps(manifest, indent=2))
  _replace(folder, partial)
  for reason, count in sorted(manifest['skipped'].items()):
    logging.warning('%s: skipped %d: %s', dataset, count, reason)
  return folder


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
      languages=args.languages, features=args.features, storage=args.storage,
      strict=args.strict)
  manifest = json.loads((folder / MANIFEST).read_text())
  print(f'{folder}: {manifest["counts"]}, skipped {manifest["skipped"]}')


def _define_flags() -> None:
  flags.DEFINE_string('dataset', '', f'One of: {", ".join(names())}.')
  flags.DEFINE_string('data_dir', '', 'Folder of prepared datasets.')
  flags.DEFINE_string('raw_dir', '', 'Folder with captions.jsonl and pictures '
                      '(--dataset=captions).')
  flags.DEFINE_integer('limit', 0, 'Items at most; 0 = all.', lower_bound=0)
  flags.DEFINE_list('languages', [], 'Codes, as en,de; none = all there are.')
  flags.DEFINE_string('features', 'grid', f'One of: {", ".join(FEATURES)}.')
  flags.DEFINE_string('storage', 'float16', f'One of: {", ".join(STORAGE)}.')
  flags.DEFINE_bool('strict', False, 'Unusable items are errors.')


if __name__ == '__main__':
  _define_flags()
  errors.run_main(main)
