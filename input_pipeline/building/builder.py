"""What all dataset builders share: from pictures and strings to records.

A dataset is a file in `datasets/` whose `Builder` says which items there are;
reading, checking, tokenising and extracting happen here.
"""

from collections.abc import Iterable, Iterator, Sequence
import functools
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import captions as captions_lib
from input_pipeline import errors
from input_pipeline import file_names
from input_pipeline import records
from input_pipeline import regions
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.building import copies
from input_pipeline.building import extracted
from input_pipeline.building import sharded_builder
from input_pipeline.building import shards
from input_pipeline.building import threads
from input_pipeline.vision import pictures
from input_pipeline.vision import svg

Options = sharded_builder.Options
SPLITS = sharded_builder.SPLITS
_BATCH = 32
_SENTENCES = 4096


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


class TextBuilder(sharded_builder.Builder, skip_registration=True):
  """Builder of `Text` records."""
  shard_items = 65_536

  def _info(self):
    return self.dataset_info_from_configs(features=records.text_features())

  def restore_item(self, row):
    return TextItem(*row)

  def make_records(self, items, report):
    """Yields the records of sentences."""
    for batch in threads.batched(self._readable(items, report), _SENTENCES):
      ids = self.tokenizer.encode_batch([item.text for item in batch])
      for item, item_ids in zip(batch, ids, strict=True):
        self.bar.update()
        if not item_ids:
          self.skip(report, item.text_id, 'empty text')
          continue
        report.languages.append(item.language)
        yield {'text_id': item.text_id, 'language': item.language,
               'text': item.text, 'ids': item_ids}

  def _readable(self, items: Iterable[TextItem],
                report: shards.Report) -> Iterator[TextItem]:
    for item in items:
      try:
        tokenizer_lib.check_unicode(item.text)
        yield item
      except errors.RowError as error:
        self.skip(report, f'{item.text_id} ({error.detail})', error.reason)


class ImageTextBuilder(sharded_builder.Builder, skip_registration=True):
  """Builder of `ImageText` records: reads pictures, extracts regions."""

  def __init__(self, *, options: Options, **kwargs):
    self.extractor: Any = (
        extracted.ExtractedRegions(options) if options.features_format
        else regions.make_extractor(options.features))
    super().__init__(options=options, **kwargs)
    self._encoder = captions_lib.Encoder(self.tokenizer)

  def _info(self):
    return self.dataset_info_from_configs(
        features=records.image_text_features(
            self.extractor.feature_dim, self.options.storage))

  @functools.cached_property
  def files(self) -> file_names.Folders:
    """The folders of the pictures."""
    return file_names.Folders()

  def check_items(self, items):
    """See the base class; also finds the items' features."""
    if isinstance(items, list):
      names: dict[pathlib.Path, str] = {}
      for item in items:
        other = names.setdefault(item.path, item.image_id)
        if other != item.image_id:
          raise errors.UserError(
              f'{self.name}: {other!r} and {item.image_id!r} are the same '
              f'file, {item.path}; allowed: one item a picture')
    if self.options.features_format:
      self.extractor.match([item.image_id for item in items])

  def restore_item(self, row):
    item = ImageItem(*row)
    return item._replace(path=pathlib.Path(item.path))

  def make_records(self, items, report):
    """Yields the records of pictures."""
    for batch in threads.batched(self._read(items, report), _BATCH):
      region_sets = self.extractor.extract([tile for _, tile, _ in batch])
      for (item, _, encoded), region_set in zip(
          batch, region_sets, strict=True):
        report.max_class_id = max(
            report.max_class_id, int(region_set.class_ids_R.max(initial=0)))
        report.languages += {caption['language'] for caption in encoded}
        yield self._record(item, encoded, region_set)

  def _read(self, items: Sequence[ImageItem],
            report: shards.Report) -> Iterator[tuple]:
    """Yields (item, tile, captions) of the items that can be used."""
    for item, outcome in threads.map_ahead(
        self._open, items, ahead=2 * _BATCH):
      self.bar.update()
      encoded = self._encode(item, report)
      if isinstance(outcome, errors.RowError):
        where, detail = str(item.path), outcome.detail
        self.skip(report, detail if where in detail else f'{where} ({detail})',
                  outcome.reason)
      elif not encoded:
        self.skip(report, str(item.path), 'no caption')
      else:
        yield item, outcome, encoded

  def _open(self, item: ImageItem):
    """Returns what `extract` takes, or the error that reading ends in."""
    try:
      if not self.options.features_format:
        return self.extractor.cut(self._picture(item))
      if os.path.isfile(item.path):  # Not needed, but nice to see.
        self._picture(item)
      return self.extractor.load(item.image_id, item.path)
    except errors.RowError as error:
      if isinstance(error, pictures.PictureError) and not os.path.isfile(
          item.path):
        return errors.RowError(
            error.reason, error.detail + self.files.near(item.path))
      return error

  def _picture(self, item: ImageItem) -> pictures.Picture:
    """Returns an item's picture, of which a small copy is kept."""
    path, is_svg = item.path, item.path.suffix.lower() == '.svg'
    picture = pictures.read(svg.rasterise(path) if is_svg else path)
    if self.options.copies:
      copies.keep(
          self.options.copies, item.image_id, item.path, picture.image)
    return picture

  def _encode(self, item: ImageItem, report: shards.Report):
    kept = []
    for language, text in item.captions:
      try:
        self._check_caption(text)
        kept.append((language, text))
      except errors.RowError as error:
        self.skip(report, f'{item.path} ({language})', error.reason)
    return self._encoder.encode(kept)

  def _check_caption(self, text: str) -> None:
    if not self.tokenizer.normalise(text):
      raise errors.RowError('empty caption')
    if len(captions_lib.split_words(text)) > captions_lib.MAX_WORDS:
      raise errors.RowError(f'caption over {captions_lib.MAX_WORDS} words')

  def _record(self, item, encoded, region_set):
    return {
        'image_id': item.image_id, 'group': item.group,
        'height': region_set.height, 'width': region_set.width,
        'boxes': region_set.boxes_R4.astype(np.float32),
        'class_ids': region_set.class_ids_R.astype(np.int32),
        'captions': encoded,
        **records.pack_features(
            region_set.features_RF, self.options.storage)}
