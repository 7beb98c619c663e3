"""What all dataset builders share: from pictures and strings to records.

A dataset is a file in `datasets/` whose `Builder` says which items there are;
reading, checking, tokenising and extracting happen here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from input_pipeline import captions as captions_lib
from input_pipeline import efficientnet
from input_pipeline import errors
from input_pipeline import pictures
from input_pipeline import records
from input_pipeline import regions
from input_pipeline import svg
from input_pipeline import tiles
from input_pipeline import tokenizer as tokenizer_lib

SPLITS = ('train', 'validation', 'test')
_BATCH = 32
_THUMBNAIL_SIDE = 160


class ImageItem(NamedTuple):
  """A picture before it is read.

  Attributes:
    image_id: unique in the dataset.
    path: the picture file.
    split: one of `SPLITS`.
    group: pictures of a group share their right answers.
    captions: (language, text) of each caption.
  """
  image_id: str
  path: pathlib.Path
  split: str
  group: str
  captions: list[tuple[str, str]]


class TextItem(NamedTuple):
  """A sentence before it is tokenised."""
  text_id: str
  split: str
  language: str
  text: str


@dataclasses.dataclass
class Options:
  """How a dataset is prepared.

  Attributes:
    raw_dir: folder of the user's own files; '' for fetched datasets.
    languages: public codes wanted; none = every language there is.
    limit: items at most, spread over the splits; 0 = all.
    strict: an unusable item is an error, not a counted skip.
    thumbnails: folder that small copies of the pictures are written to.
  """
  raw_dir: str = ''
  languages: tuple[str, ...] = ()
  limit: int = 0
  strict: bool = False
  thumbnails: pathlib.Path | None = None


def thumbnail_name(image_id: str) -> str:
  """Returns the file name of a picture's small copy."""
  return image_id.replace('/', '__') + '.webp'


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """TFDS builder over the items of one dataset file."""
  VERSION = tfds.core.Version('1.0.0')
  # TFDS looks beside the code for checksums of downloads; there are none.
  code_path = None

  def __init_subclass__(cls, **kwargs):
    # TFDS would call every dataset after the folder, `datasets`.
    cls.name = cls.__module__.rpartition('.')[2]
    super().__init_subclass__(**kwargs)

  def __init__(self, *, options: Options, data_dir: str | os.PathLike[str]):
    self.options = options
    self.skipped: Counter[str] = Counter()
    self.tokenizer = tokenizer_lib.load()
    super().__init__(data_dir=data_dir)

  def items(self) -> list[Any]:
    """Returns the dataset's items; overridden by each dataset."""
    raise NotImplementedError

  def skip(self, reason: str, where: str) -> None:
    """Counts an unusable item; with `strict` it is an error.

    Raises:
      UserError: `strict` is on.
    """
    if self.options.strict:
      raise errors.UserError(f'{where}: {reason} (--strict)')
    self.skipped[reason] += 1

  def _split_generators(self, dl_manager):
    del dl_manager
    items = self.items()
    if self.options.limit:
      items = items[:: max(1, len(items) // self.options.limit)][
          :self.options.limit]
    by_split = {split: [item for item in items if item.split == split]
                for split in SPLITS}
    return {split: self._generate_examples(split, chosen)
            for split, chosen in by_split.items() if chosen}

  def _progress(self, iterable: Iterable[Any], split: str, total: int):
    return tqdm.tqdm(iterable, f'{self.name} {split}', total, unit=' items',
                     dynamic_ncols=True)


class TextBuilder(_Builder, skip_registration=True):
  """Builder of `Text` records."""

  def _info(self):
    return self.dataset_info_from_configs(features=records.text_features())

  def _generate_examples(self, split, items):
    ids = self.tokenizer.encode_batch([item.text for item in items])
    pairs = zip(items, ids, strict=True)
    for item, item_ids in self._progress(pairs, split, len(items)):
      if not item_ids:
        self.skip('empty text', item.text_id)
        continue
      yield item.text_id, {
          'text_id': item.text_id, 'language': item.language,
          'text': item.text, 'ids': item_ids}


class ImageTextBuilder(_Builder, skip_registration=True):
  """Builder of `ImageText` records with grid features."""

  def _info(self):
    return self.dataset_info_from_configs(
        features=records.image_text_features(efficientnet.FEATURE_DIM))

  def __init__(self, **kwargs):
    self.extractor = regions.GridExtractor()
    super().__init__(**kwargs)

  def _generate_examples(self, split, items):
    read = self._read(items)
    with self._progress(None, split, len(items)) as bar:
      for chunk in _batched(read, _BATCH):
        found = [(item, *pair) for item, pair in chunk if pair]
        bar.update(len(chunk))
        if not found:
          continue
        region_sets = self.extractor.extract([tile for _, tile, _ in found])
        for (item, _, encoded), region_set in zip(
            found, region_sets, strict=True):
          yield item.image_id, self._record(item, encoded, region_set)

  def _read(self, items: Sequence[ImageItem]) -> Iterator[tuple[Any, Any]]:
    """Yields (item, (tile, captions)), None for the pair of a skipped item."""
    for item, outcome in _in_threads(self._open, items):
      encoded = self._encode(item)
      if isinstance(outcome, pictures.PictureError):
        self.skip(outcome.reason, str(item.path))
        yield item, None
      elif not encoded:
        self.skip('no caption', str(item.path))
        yield item, None
      else:
        yield item, (outcome, encoded)

  def _open(self, item: ImageItem):
    try:
      source = item.path
      if source.suffix.lower() == '.svg':
        source = svg.rasterise(source)
      picture = pictures.read(source)
    except pictures.PictureError as error:
      return error
    if self.options.thumbnails:
      small = picture.image.copy()
      small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
      small.save(
          self.options.thumbnails / thumbnail_name(item.image_id), quality=80)
    return tiles.cut_tile(
        picture, efficientnet.PICTURE_SIZE, crop_to_content=True)

  def _encode(self, item: ImageItem):
    kept = []
    for language, text in item.captions:
      if not text.strip():
        self.skip('empty caption', f'{item.path} ({language})')
      elif len(text.split()) > captions_lib.MAX_WORDS:
        self.skip(f'caption over {captions_lib.MAX_WORDS} words',
                  f'{item.path} ({language})')
      else:
        kept.append((language, text))
    return captions_lib.encode(kept, self.tokenizer)

  def _record(self, item, encoded, region_set):
    return {
        'image_id': item.image_id, 'group': item.group,
        'height': region_set.height, 'width': region_set.width,
        'boxes': region_set.boxes_R4.astype(np.float32),
        'features': region_set.features_RF.astype(np.float16),
        'class_ids': region_set.class_ids_R.astype(np.int32),
        'captions': encoded}


def _batched(iterable: Iterable[Any], size: int) -> Iterator[list[Any]]:
  chunk = []
  for item in iterable:
    chunk.append(item)
    if len(chunk) == size:
      yield chunk
      chunk = []
  if chunk:
    yield chunk


def _in_threads(fn: Callable[[Any], Any], items: Sequence[Any]):
  """Yields (item, fn(item)) in order, a few batches ahead of the caller."""
  # Pillow and resvg decode outside the GIL.
  workers = os.cpu_count() or 1
  with futures.ThreadPoolExecutor(workers) as pool:
    window = [pool.submit(fn, item) for item in items[:2 * _BATCH]]
    for i, item in enumerate(items):
      future = window[i]
      window[i] = None  # The decoded picture is freed once it is used.
      if i + 2 * _BATCH < len(items):
        window.append(pool.submit(fn, items[i + 2 * _BATCH]))
      yield item, future.result()
