"""Writes the files of published captions, and reads them as items."""

import gzip
import importlib
import json
import pathlib

from input_pipeline import builder


def items(name: str, raw_dir, *wanted: str, **options):
  """Returns {image id: (split, captions)} of a dataset, in its order."""
  module = importlib.import_module(f'input_pipeline.datasets.{name}')
  found = list(module.Builder.list_items(builder.Options(
      raw_dir=str(raw_dir), languages=wanted, **options)))
  if limit := options.get('limit'):
    found = found[:limit]
  assert len({item[0] for item in found}) == len(found)
  if issubclass(module.Builder, builder.TextBuilder):
    return found
  return {item.image_id: (item.split, item.captions) for item in found}


def write(path: pathlib.Path, *lines: str) -> None:
  """Writes lines, packed where the name says so."""
  path.parent.mkdir(parents=True, exist_ok=True)
  data = '\n'.join([*lines, '']).encode()
  path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)


def jsonl(path: pathlib.Path, *rows: dict) -> None:
  """Writes a JSON object a line."""
  write(path, *(json.dumps(row) for row in rows))


def karpathy(path: pathlib.Path, rows, captions: int = 5) -> None:
  """Writes Karpathy's file of (file name, COCO's number, split)."""
  write(path, json.dumps({'images': [
      {'filepath': 'val2014', 'filename': name, 'cocoid': number,
       'split': split,
       'sentences': [{'raw': f'{name} {i}'} for i in range(captions)]}
      for name, number, split in rows]}))


def multi30k(root: pathlib.Path) -> pathlib.Path:
  """Writes the repository multi30k/dataset, with six pictures."""
  for split, names in (('train', ('2.jpg', '1.jpg')), ('val', ('3.jpg',)),
                       ('test_2016_flickr', ('6.jpg', '4.jpg', '5.jpg')),
                       ('test_2017_mscoco', ('COCO_9.jpg#12',))):
    folder = root / 'data' / 'task1'
    write(folder / 'image_splits' / f'{split}.txt', *names)
    for code in ('en', 'de', 'fr', 'cs'):
      write(folder / 'raw' / f'{split}.{code}.gz',
            *(f'{code} {name}' for name in names))
      write(folder / 'tok' / f'{split}.lc.norm.tok.{code}', 'too few')
    if 'mscoco' in split:
      continue
    folder, split = root / 'data' / 'task2', split.removesuffix('_flickr')
    write(folder / 'image_splits' / f'{split}_images.txt', *names)
    for number in range(1, 6):
      for code in ('en', 'de'):
        write(folder / 'raw' / f'{split}.{number}.{code}.gz',
              *(f'{code} {number} {name}' for name in names))
  return root
