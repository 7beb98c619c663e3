"""The two kinds of dataset: from pictures and strings to records.

A dataset is a file in `datasets/` whose `Builder` says which items there are;
reading, checking, tokenising and extracting happen here.
"""

from collections import Counter
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import functools
import itertools
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import base_builder
from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import extracted
from input_pipeline import file_names
from input_pipeline import fingerprint
from input_pipeline import items as items_lib
from input_pipeline import known as known_lib
from input_pipeline import records
from input_pipeline import regions
from input_pipeline import shards
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.vision import extractors
from input_pipeline.vision import files
from input_pipeline.vision import pictures

SPLITS = items_lib.SPLITS
ImageItem = items_lib.ImageItem
TextItem = items_lib.TextItem
Options = items_lib.Options
_PICTURES, _SENTENCES = 32, 4096


class TextBuilder(base_builder.Builder):
  """Builder of `Text` records."""
  VERSION = base_builder.Version('1.3.0')
  shard_items = 65_536

  def _info(self):
    return self.describe(records.text_features())

  def restore_item(self, row):
    return TextItem(*row)

  def make_records(self, items, report):
    """Returns the records of sentences."""
    return records.pack_texts(self._encode(items, report))

  def _encode(self, items: Sequence[TextItem],
              report: shards.Report) -> Iterator[tuple[str, list[int]]]:
    """Yields (language, ids) of the sentences that can be used."""
    for batch in _batched(self._readable(items, report), _SENTENCES):
      ids = self.tokenizer.encode_batch([item.text for item in batch])
      for item, item_ids in zip(batch, ids, strict=True):
        self.bar.update()
        if not item_ids:
          self.skip(report, item.text_id, 'empty text')
          continue
        report.num_texts += 1
        report.languages.append(item.language)
        yield item.language, item_ids

  def _readable(self, items: Iterable[TextItem],
                report: shards.Report) -> Iterator[TextItem]:
    for item in items:
      try:
        tokenizer_lib.check_unicode(item.text)
        yield item
      except errors.RowError as error:
        self.skip(report, f'{item.text_id} ({error.detail})', error.reason)


class _Opened(NamedTuple):
  """What was read of an item."""
  tiles: list[Any]  # What `extract` takes; none where there is a record.
  record: known_lib.Record | None = None  # Made of this picture before.
  stamp: list[Any] | None = None  # None = it will not be known again.
  content: str = ''
  date: str = ''
  look: str = ''


class ImageTextBuilder(base_builder.Builder):
  """Builder of `ImageText` records: reads pictures, extracts regions.

  Attributes:
    labels: names of the classes that captions have; () = they have none.
    num_pictures: of an item, 1 or 2.
  """
  labels: Sequence[str] = ()
  num_pictures = 1

  def __init__(self, *, options: Options, **kwargs):
    self.extractor: Any = self.make_extractor(options)
    super().__init__(options=options, **kwargs)
    self.encode = tokenizer_lib.CaptionEncoder(self.tokenizer).encode

  @classmethod
  def make_extractor(cls, options: Options) -> Any:
    """Returns what turns pictures into regions, with its manifest."""
    if options.features_format:
      return extracted.ExtractedRegions(options)
    return extractors.make_extractor(options.features)

  def _info(self):
    return self.describe(records.image_text_features(
        self.extractor.feature_dim, self.options.storage, self.num_pictures,
        has_labels=bool(self.labels)))

  @classmethod
  def remembers(cls, options):
    """Returns whether pictures of the user's own are read here."""
    return (bool(options.raw_dir) and not options.features_format
            and not cls.labels)

  def key_of(self, items):
    """Returns the digest of items and of their pictures' stamps."""
    return fingerprint.of_rows(
        [*item.row(str(item.path)), known_lib.stamp(item.path)]
        for item in items) if self.remembers(self.options) else ''

  @functools.cached_property
  def _known(self) -> known_lib.Known | None:
    return known_lib.Known(
        self.options.shards, self.options.before) if self.remembers(
            self.options) else None

  def cut(self, items, first=0):
    """Yields the shards of before that keep half of their items, then others.
    """
    if self._known and self.follows_arrival:
      places = [self._known.place_of(item.split, _digest(item), item.path)
                for item in items]
      # What has become small is put together anew, or files would multiply.
      kept = {place: [] for place, count in Counter(places).items()
              if place is not None and 2 * count >= self.shard_items}
      rest = []
      for item, place in zip(items, places, strict=True):
        kept.get(place, rest).append(item)
      for number, (place, found) in enumerate(sorted(kept.items()), first):
        shard = shards.Shard(
            found[0].split, number, found, self.key_of(found))
        self.names.add(shard.name)
        file = self._known.files[place]
        if len(found) == len(file.rows):
          shards.keep(self.options.shards, shard, file)
        yield shard
      items, first = rest, first + len(kept)
    yield from super().cut(items, first)

  def _download_and_prepare(self, dl_manager, download_config=None):
    super()._download_and_prepare(dl_manager, download_config)
    for report in self.reports.values():
      for row in itertools.starmap(known_lib.Row, report.files):
        staged = self._staged(row.content)
        copies.link(
            staged if staged.exists() else self._known.small(row.content),
            copies.small_of(self.options.copies, row.image_id))

  def _staged(self, content: str) -> pathlib.Path:
    """Returns where the small copy of a content lies until all are there."""
    return self.options.shards / f'{content}.webp'

  @functools.cached_property
  def files(self) -> file_names.Folders:
    """The folders of the pictures."""
    return file_names.Folders()

  def check_items(self, items):
    """Refuses two items of one file; finds the items' features."""
    if isinstance(items, list):
      names: dict[Any, str] = {}
      for item in items:
        other = names.setdefault((item.path, item.span), item.image_id)
        if other != item.image_id and not item.pictures:
          raise errors.UserError(
              f'{self.name}: {other!r} and {item.image_id!r} are the same '
              f'file, {item.path}; allowed: one item a picture')
    if self.options.features_format:
      self.extractor.match(
          [part.image_id for item in items for part in item.parts])

  def restore_item(self, row):
    item = ImageItem(*row)
    return item._replace(
        path=pathlib.Path(item.path), pictures=tuple(
            (name, pathlib.Path(path)) for name, path in item.pictures),
        span=(item.span[0], item.span[1]) if item.span else None)

  def make_records(self, items, report):
    """Yields the records of pictures."""
    self._known  # noqa: B018 — Made here, before there are threads.
    for batch in _batched(self._read(items, report), _PICTURES):
      region_sets = iter(self.extractor.extract([
          tile for _, found, _ in batch for tile in found.tiles]))
      for item, found, captions in batch:
        digest = _digest(item)
        record = found.record
        if record and record.row.item == digest:
          max_class_id = record.row.max_class_id
          yield record.read()
        else:
          columns = (self.info.features.deserialize_example_np(record.read())
                     if record else self._pack(
                         [next(region_sets) for _ in found.tiles]))
          max_class_id = max(
              int(one['class_ids'].max(initial=0))
              for one in (columns, columns.get('second', columns)))
          yield columns | {'image_id': item.image_id, 'group': item.group,
                           'captions': self.encode(captions)}
        if found.stamp:
          report.files.append(known_lib.Row(
              item.image_id, os.path.realpath(item.path), found.stamp,
              found.content, digest, max_class_id, found.date, found.look))
        report.languages += {language for language, *_ in captions}
        report.max_class_id = max(report.max_class_id, max_class_id)

  def _pack(self, region_sets: Sequence[regions.RegionSet]) -> dict[str, Any]:
    """Returns the record's columns of the regions of its pictures."""
    first, *second = (
        {'height': found.height, 'width': found.width,
         'boxes': found.boxes_R4.astype(np.float32),
         'class_ids': found.class_ids_R.astype(np.int32),
         **records.pack_features(found.features_RF, self.options.storage)}
        for found in region_sets)
    return first | ({'second': second[0]} if second else {})

  def _read(self, items: Sequence[ImageItem],
            report: shards.Report) -> Iterator[tuple]:
    """Yields (item, what was read, captions) of those that can be used."""
    for item, outcome in _map_ahead(self._open, items, ahead=2 * _PICTURES):
      self.bar.update()
      captions = self._kept_captions(item, report)
      if isinstance(outcome, errors.RowError):
        where, detail = item.where, outcome.detail
        self.skip(report, detail if where in detail else f'{where} ({detail})',
                  outcome.reason)
      elif not captions:
        self.skip(report, item.where, 'no caption')
      else:
        yield item, outcome, captions

  def _open(self, item: ImageItem):
    """Returns what was read of an item, or the error that it ends in."""
    if item.pictures:
      parts = [self._open(part._replace(pictures=())) for part in item.parts]
      return next((part for part in parts if isinstance(part, errors.RowError)),
                  None) or _Opened([part.tiles[0] for part in parts])
    try:
      if self.options.features_format:
        if os.path.isfile(item.path):  # Not needed, but nice to see.
          self._picture(item)
        return _Opened([self.extractor.load(
            item.image_id, None if item.span else item.path)])
      stamp = (known_lib.stamp(item.path)
               if self._known and not item.span else None)
      record = self._known.find(item.path, stamp) if stamp else None
      if record:
        if not self._staged(record.row.content).exists():
          copies.link(record.small, self._staged(record.row.content))
        return _Opened([], record, stamp, *record.row.kept())
      picture = self._picture(item, is_staged=bool(stamp))
      return _Opened(
          [self.extractor.cut(picture)], None, stamp, picture.sha256,
          picture.date, copies.look(picture.image) if stamp else '')
    except errors.RowError as error:
      if isinstance(error, pictures.PictureError) and not os.path.isfile(
          item.path):
        return errors.RowError(
            error.reason, error.detail + self.files.near(item.path))
      return error

  def _picture(self, item: ImageItem, *,
               is_staged: bool = False) -> pictures.Picture:
    """Returns an item's picture, of which a small copy is kept."""
    picture = (files.read_part(item.path, *item.span) if item.span
               else files.read(item.path))
    if is_staged:
      self._staged(picture.sha256).write_bytes(copies.shrink(picture.image))
    elif self.options.copies:
      copies.keep(self.options.copies, item.image_id,
                  None if item.span else item.path, picture.image)
    return picture

  def _kept_captions(self, item: ImageItem,
                     report: shards.Report) -> list[Any]:
    """Returns the captions that can be used."""
    kept = []
    for caption in item.captions:
      language, text, *_ = caption
      try:
        self._check_caption(text)
        kept.append(caption)
      except errors.RowError as error:
        self.skip(report, f'{item.where} ({language})', error.reason)
    return kept

  def _check_caption(self, text: str) -> None:
    if not self.tokenizer.normalise(text):
      raise errors.RowError('empty caption')
    if len(tokenizer_lib.split_words(text)) > tokenizer_lib.MAX_CAPTION_WORDS:
      raise errors.RowError(
          f'caption over {tokenizer_lib.MAX_CAPTION_WORDS} words')


def _digest(item: ImageItem) -> str:
  """Returns that of what a record says beside its regions."""
  return fingerprint.of([item.image_id, item.group, item.captions])


def _batched(iterable: Iterable[Any], size: int) -> Iterator[list[Any]]:
  iterator = iter(iterable)
  while batch := list(itertools.islice(iterator, size)):
    yield batch


def _map_ahead(function: Callable[[Any], Any], items: Iterable[Any], *,
               ahead: int) -> Iterator[tuple[Any, Any]]:
  """Yields (item, function(item)) in order, `ahead` of them made before.

  In threads: Pillow and resvg work outside the GIL.
  """
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    waiting: deque[tuple[Any, futures.Future[Any]]] = deque()
    for item in items:
      waiting.append((item, pool.submit(function, item)))
      if len(waiting) > ahead:
        first, future = waiting.popleft()
        yield first, future.result()
    for first, future in waiting:
      yield first, future.result()
