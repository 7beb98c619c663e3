"""Pictures of a prepared dataset once more, captioned by their classes' names.

`--raw_dir` is the folder of a prepared dataset, as `data/captions`. Regions are
taken from its records; its own captions are not looked at. Only the training
split is taken where there is one. See `vision/class_names.py`.
"""

from collections.abc import Iterator
import itertools
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import records
from input_pipeline import store
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.vision import class_names

_CAPTIONS = 16  # Of each picture.


class _Item(NamedTuple):
  """A record of the prepared dataset, by its place in a split of it."""
  source_split: str
  number: int
  split: str = 'train'


class _Prepared:
  """Stands where an extractor does: the regions are in records already."""

  def __init__(self, folder: pathlib.Path):
    path = folder / 'manifest.json'
    if not path.is_file():
      raise errors.UserError(
          f'--raw_dir is {str(folder)!r}; allowed: the folder of a prepared '
          'dataset, with manifest.json')
    manifest = json.loads(path.read_text(encoding='utf-8'))
    if 'feature_extractor' not in manifest:
      raise errors.UserError(f'--raw_dir={folder}: it has no pictures')
    self.manifest = manifest['feature_extractor']
    self.source = store.open_builder(folder.parent, folder.name)
    self.feature_dim = self.source.info.features['features'].shape[-1]

  def read(self, split: str, first: int, last: int) -> Iterator[dict[str, Any]]:
    """Yields records of a split, in their order."""
    yield from self.source.as_dataset(
        split=f'{split}[{first}:{last}]', read_config=tfds.ReadConfig(
            interleave_cycle_length=1)).as_numpy_iterator()


class Builder(builder.ImageTextBuilder):
  """The pictures of a prepared dataset, captioned by names."""

  @classmethod
  def remembers(cls, options):
    """Returns False: of pictures the records are read, not the files."""
    return False

  @classmethod
  def make_extractor(cls, options: builder.Options) -> _Prepared:
    if options.features != builder.Options().features:
      raise errors.UserError(
          f'--features is {options.features!r}; class_names has the regions of '
          '--raw_dir: leave it out')
    return _Prepared(pathlib.Path(options.raw_dir))

  def items(self) -> Iterator[_Item]:
    splits = self.make_extractor(self.options).source.info.splits
    for split in ['train'] if 'train' in splits else sorted(splits):
      for number in range(splits[split].num_examples):
        yield _Item(split, number)

  def restore_item(self, row):
    return _Item(*row)

  def make_records(self, items, report):
    """Yields the source's records with names for captions."""
    names = class_names.ClassNames(self.extractor.manifest)
    report.languages.append(tokenizer_lib.SOURCE_LANGUAGE)
    for split, group in itertools.groupby(
        items, lambda item: item.source_split):
      numbers = [item.number for item in group]
      for row in self.extractor.read(split, numbers[0], numbers[-1] + 1):
        self.bar.update()
        features_RF = row.pop('features')
        if 'scales' in row:
          features_RF = features_RF * row.pop('scales')[:, np.newaxis]
        image_id = row['image_id'].decode('utf-8', 'surrogateescape')
        report.max_class_id = max(
            report.max_class_id, int(row['class_ids'].max(initial=0)))
        yield row | records.pack_features(
            features_RF, self.options.storage) | {
                'captions': self.encode([
                    (tokenizer_lib.SOURCE_LANGUAGE, caption) for caption in
                    names.captions(image_id, features_RF, _CAPTIONS)])}
