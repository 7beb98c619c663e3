"""What all dataset builders share: from pictures and strings to records.

A dataset is a file in `datasets/` whose `Builder` says which items there are;
reading, checking, tokenising and extracting happen here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
import os
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from input_pipeline import captions as captions_lib
from input_pipeline import errors
from input_pipeline import extracted
from input_pipeline import pictures
from input_pipeline import records
from input_pipeline import regions
from input_pipeline import svg
from input_pipeline import threads
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
    languages: public codes wanted; none = the dataset's default.
    limit: items at most, spread over the dataset; 0 = all.
    strict: an unusable item is an error, not a counted skip.
    features, features_format: 'grid' and '', or a file and its format.
    thumbnails: folder that small copies of the pictures are written to.
  """
  raw_dir: str = ''
  languages: tuple[str, ...] = ()
  limit: int = 0
  strict: bool = False
  features: str = 'grid'
  features_format: str = ''
  thumbnails: pathlib.Path | None = None


def thumbnail_name(image_id: str) -> str:
  """Returns the file name of a picture's small copy."""
  return image_id.replace('/', '__') + '.webp'


class _Builder(tfds.core.GeneratorBasedBuilder,
               skip_registration=True):  # type: ignore[call-arg]
  """TFDS builder over the items of one dataset file.

  Attributes:
    options: how it is prepared.
    skipped: reason → how many items were left out for it.
    languages: those that the records have.
    tokenizer: of the model.
  """
  # A change of a dataset's records takes a new version: old ones are remade.
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
    self.languages: set[str] = set()
    self.tokenizer = tokenizer_lib.load()
    super().__init__(data_dir=data_dir)

  def items(self) -> Iterable[Any]:
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

  def prepare(self) -> None:
    """Writes the records, under a progress bar."""
    with tqdm.tqdm(
        desc=self.name, unit='item', file=sys.stderr,
        mininterval=0.5 if sys.stderr.isatty() else 15) as self._bar:
      tfds.disable_progress_bar()  # Its bars would know no total.
      self.download_and_prepare()

  def _split_generators(self, dl_manager):
    del dl_manager
    items = list(self.items())
    if self.options.features_format:
      self.extractor.match([item.image_id for item in items])
    if self.options.limit:
      step = max(1, len(items) // self.options.limit)
      items = items[::step][:self.options.limit]
    self._bar.reset(total=len(items))
    found = {}
    for split in SPLITS:
      chosen = [item for item in items if item.split == split]
      examples = self._generate_examples(chosen)
      # TFDS fails on a split without examples: a first one is made here.
      first = list(itertools.islice(examples, 1))
      if first:
        found[split] = itertools.chain(first, examples)
    return found


class TextBuilder(_Builder, skip_registration=True):
  """Builder of `Text` records."""

  def _info(self):
    return self.dataset_info_from_configs(features=records.text_features())

  def _generate_examples(self, items):
    ids = self.tokenizer.encode_batch([item.text for item in items])
    for item, item_ids in zip(items, ids, strict=True):
      self._bar.update()
      if not item_ids:
        self.skip('empty text', item.text_id)
        continue
      self.languages.add(item.language)
      yield item.text_id, {
          'text_id': item.text_id, 'language': item.language,
          'text': item.text, 'ids': item_ids}


class ImageTextBuilder(_Builder, skip_registration=True):
  """Builder of `ImageText` records with grid features, or those of a file."""

  def _info(self):
    return self.dataset_info_from_configs(
        features=records.image_text_features(self.extractor.feature_dim))

  def __init__(self, *, options: Options, **kwargs):
    self.extractor: Any = (
        extracted.ExtractedRegions(options) if options.features_format
        else regions.GridExtractor(batch_size=_BATCH))
    super().__init__(options=options, **kwargs)
    self._encoder = captions_lib.Encoder(self.tokenizer)

  def _generate_examples(self, items):
    for batch in threads.batched(self._read(items), _BATCH):
      region_sets = self.extractor.extract([tile for _, tile, _ in batch])
      for (item, _, encoded), region_set in zip(
          batch, region_sets, strict=True):
        yield item.image_id, self._record(item, encoded, region_set)

  def _read(self, items: Sequence[ImageItem]) -> Iterator[tuple]:
    """Yields (item, tile, captions) of the items that can be used."""
    for item, outcome in threads.map_ahead(
        self._open, items, ahead=2 * _BATCH):
      self._bar.update()
      encoded = self._encode(item)
      if isinstance(outcome, errors.RowError):
        self.skip(outcome.reason, f'{item.path} ({outcome.detail})')
      elif not encoded:
        self.skip('no caption', str(item.path))
      else:
        yield item, outcome, encoded

  def _open(self, item: ImageItem):
    """Returns what `extract` takes, or the error that reading ends in."""
    try:
      if not self.options.features_format:
        return self.extractor.cut(self._picture(item))
      if item.path.is_file():  # Not needed, but nice to see.
        self._picture(item)
      return self.extractor.load(item.image_id, item.path)
    except errors.RowError as error:
      return error

  def _picture(self, item: ImageItem) -> pictures.Picture:
    """Returns an item's picture, of which a small copy is kept."""
    path, is_svg = item.path, item.path.suffix.lower() == '.svg'
    picture = pictures.read(svg.rasterise(path) if is_svg else path)
    if self.options.thumbnails:
      small = picture.image.copy()
      small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
      small.save(
          self.options.thumbnails / thumbnail_name(item.image_id), quality=80)
    return picture

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
    return self._encoder.encode(kept)

  def _record(self, item, encoded, region_set):
    self.languages.update(caption['language'] for caption in encoded)
    return {
        'image_id': item.image_id, 'group': item.group,
        'height': region_set.height, 'width': region_set.width,
        'boxes': region_set.boxes_R4.astype(np.float32),
        'features': region_set.features_RF.astype(np.float16),
        'class_ids': region_set.class_ids_R.astype(np.int32),
        'captions': encoded}
