"""Writes a prepared dataset's regions in a format that others read.

python -m input_pipeline.export --dataset=NAME --data_dir=DIR --format=NAME \
  --out=PATH
"""

from collections.abc import Iterator, Sequence
import json
import os
import shutil

from absl import flags
import numpy as np

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import paths
from input_pipeline import regions
from input_pipeline.regions import source

CAPTIONS = '.captions.jsonl'


def names() -> list[str]:
  """Returns the names of the formats that can be written."""
  return list(source.writers())


@console.hold_library_logs()
def export(dataset: str, data_dir: str | os.PathLike, *, format_name: str,
           out: str | os.PathLike, overwrite: bool = False) -> int:
  """Returns how many images were written, of all splits in their order.

  Beside the file appears `<out>.captions.jsonl`, with the captions and splits
  as `--dataset=captions` reads them. Both appear whole or not at all.

  Raises:
    UserError: an unknown name, `out` exists, or an image does not fit in.
  """
  errors.check_choice('--format', format_name, names())
  out = paths.local(out, '--out')
  captions = out.with_name(out.name + CAPTIONS)
  for path in (out, captions):
    if path.exists() and not overwrite:
      raise errors.UserError(f'{path} exists; --overwrite replaces it')
  count, images = _records(dataset, data_dir)
  partial = out.with_name(f'.{out.name}.partial')
  partial_captions = captions.with_name(f'.{captions.name}.partial')
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)
    writer = source.writers()[format_name](partial)
    bar = console.bar(dataset, count, unit='images')
    with bar, writer, open(partial_captions, 'w', encoding='utf-8') as lines:
      for region_set, row in images:
        writer.add(region_set)
        lines.write(json.dumps(row, ensure_ascii=False) + '\n')
        bar.update()
    _remove(out)
    partial.rename(out)
    partial_captions.replace(captions)
  except OSError as error:
    raise errors.UserError(f'cannot write --out={out}: {error}') from error
  finally:
    _remove(partial)
    partial_captions.unlink(missing_ok=True)
  return count


def _records(dataset: str, data_dir: str | os.PathLike,
             ) -> tuple[int, Iterator[tuple[regions.RegionSet, dict]]]:
  """Returns the number of images; and each with its line of captions."""
  # Slow to load: after the checks of the flags.
  import tensorflow_datasets as tfds

  from input_pipeline import store

  builder = store.open_builder(data_dir, dataset)
  if 'captions' not in builder.info.features:
    raise errors.UserError(f'{dataset} has no pictures to export')

  def images():
    for split in builder.info.splits:
      for record in builder.as_dataset(
          split=split, shuffle_files=False, read_config=tfds.ReadConfig(
              try_autocache=False)).as_numpy_iterator():
        yield _regions(record), _row(record, split)

  return sum(s.num_examples for s in builder.info.splits.values()), images()


def _regions(record: dict) -> regions.RegionSet:
  features_RF = record['features']
  if 'scales' in record:  # --storage=int8
    features_RF = features_RF * record['scales'][:, np.newaxis]
  return regions.RegionSet(
      features_RF, record['boxes'], record['class_ids'],
      int(record['height']), int(record['width']), record['image_id'].decode())


def _row(record: dict, split: str) -> dict:
  """Returns the line of `captions.jsonl` of a record."""
  captions: dict[str, list[str]] = {}
  for language, text in zip(record['captions']['language'],
                            record['captions']['text'], strict=True):
    captions.setdefault(language.decode(), []).append(text.decode())
  return {'image': record['image_id'].decode(), 'split': split,
          'captions': captions, 'group': record['group'].decode()}


def _remove(path: paths.Path) -> None:
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def main(argv: Sequence[str]) -> None:
  """Exports the dataset of the flags and prints what was written."""
  console.check_flags(argv, ('dataset', 'data_dir', 'format', 'out'))
  args = flags.FLAGS
  count = export(args.dataset, args.data_dir, format_name=args.format,
                 out=args.out, overwrite=args.overwrite)
  print(f'{args.out}: {count} images; captions: {args.out}{CAPTIONS}')


def _define_flags() -> None:
  flags.DEFINE_string('dataset', '', 'A prepared dataset of pictures.')
  flags.DEFINE_string('data_dir', '', 'Folder of prepared datasets.')
  flags.DEFINE_string('format', '', f'One of: {", ".join(names())}.')
  flags.DEFINE_string('out', '', 'File (volta_lmdb: folder) to write; captions '
                      f'go into PATH{CAPTIONS}.')
  flags.DEFINE_bool('overwrite', False, 'Replace what is there.')


if __name__ == '__main__':
  _define_flags()
  console.run_main(main)
