"""What all dataset builders share: from pictures and strings to records.

A dataset is a file in `datasets/` whose `Builder` says which items there are;
reading, checking, tokenising and extracting happen here. TFDS's own writer
keeps everything to the end and begins again after a kill; here a dataset grows
shard by shard, and TFDS is told of the result.
"""

from collections import Counter
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import functools
import itertools
import json
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing
import tqdm

from input_pipeline import captions as captions_lib
from input_pipeline import console
from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import extracted
from input_pipeline import file_names
from input_pipeline import items as items_lib
from input_pipeline import records
from input_pipeline import shards
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.vision import extractors
from input_pipeline.vision import pictures

SPLITS = items_lib.SPLITS
ImageItem = items_lib.ImageItem
TextItem = items_lib.TextItem
Options = items_lib.Options
_PICTURES, _SENTENCES = 32, 4096


class _Builder(tfds.core.dataset_builder.FileReaderBuilder,
               skip_registration=True):  # type: ignore[call-arg]
  """TFDS builder over the items of one dataset file.

  Attributes:
    reports: split → what was written and what was left out.
    totals: split → items before any was left out; empty where it is unknown.
    notes: what the manifest says of the items beside their number.
    tokenizer: of the model.
    listed: its items, where `list_items` has found them already.
  """
  # A change of a dataset's records takes a new version: old ones are remade.
  VERSION = tfds.core.Version('1.2.0')
  # TFDS looks beside the code for checksums of downloads; there are none.
  code_path = None
  # What is lost at most when preparation is killed.
  shard_items = 256

  def __init_subclass__(cls, **kwargs):
    # TFDS would call every dataset after the folder, `datasets`.
    cls.name = cls.__module__.rpartition('.')[2]
    # TFDS has sets of its own called `coco`, and others that we read.
    super().__init_subclass__(skip_registration=True, **kwargs)

  def __init__(self, *, options: Options, data_dir: str | os.PathLike[str]):
    self._begin(options)
    self.tokenizer = tokenizer_lib.load()
    super().__init__(data_dir=data_dir)

  def _begin(self, options: Options) -> None:
    self.options = options
    self.reports: dict[str, shards.Report] = {}
    self.totals: Counter[str] = Counter()
    self.notes: dict[str, Any] = {}
    self.bar = tqdm.tqdm(disable=True)
    self.listed: list[Any] | None = None
    self._is_checked = False

  @classmethod
  def list_items(cls, options: Options) -> Iterable[Any]:
    """Returns `items()` without an extractor, features or a place to write."""
    builder = cls.__new__(cls)
    builder._begin(options)
    return builder.items()

  def items(self) -> Iterable[Any]:
    """Returns the dataset's items; overridden by each dataset.

    The training split of a list is put into TFDS's order, which looks random;
    the other splits keep theirs, and so does anything that is no list, which
    is read piece by piece.
    """
    raise NotImplementedError

  def check_items(self, items: Iterable[Any]) -> None:
    """Looks at all items before the first shard is made, in every process.

    Raises:
      UserError: they cannot be used.
    """

  def make_records(self, items: Sequence[Any],
                   report: shards.Report) -> Iterator[dict[str, Any]]:
    """Yields the records of items; see `shards.MakeRecords`."""
    raise NotImplementedError

  def restore_item(self, row: list[Any]) -> Any:
    """Returns the item whose fields went through JSON."""
    raise NotImplementedError

  def note(self, name: str, value: Any) -> None:
    """Puts what a dataset says of its items into the manifest, and logs it."""
    if value and self.options.shards and self.notes.get(name) != value:
      logging.warning('%s: %s: %s', self.name, name.replace('_', ' '), value)
    self.notes[name] = value

  def skip(self, report: shards.Report, where: str, reason: str) -> None:
    """Counts an unusable item; with `strict` it is an error."""
    if self.options.strict:
      raise errors.UserError(f'{where}: {reason} (--strict)')
    report.skipped.append([where, reason])

  def chosen_items(self) -> tuple[Iterable[Any], int | None]:
    """Returns the items that the options ask for, and their number if known.
    """
    items, limit = self.listed or self.items(), self.options.limit
    if not isinstance(items, list):
      self.check_items(self.items())
      return (itertools.islice(items, limit) if limit else items), None
    if repeated := [name for name, count in Counter(
        item[0] for item in items).items() if count > 1]:
      raise errors.UserError(f'{self.name}: {repeated[0]!r} stands there '
                             'twice; allowed: one item an id')
    self.check_items(items)
    self.totals = Counter(item.split for item in items)
    if limit:
      items = items[::max(1, len(items) // limit)][:limit]
    hasher = hashing.Hasher('train')
    # Protocols take the first pictures and folds of a published list; training
    # cuts rows of text out of neighbours, which shall have nothing in common.
    return sorted(items, key=lambda item: (
        SPLITS.index(item.split),
        hasher.hash_key(item[0]) if item.split == 'train' else 0)), len(items)

  def _download_and_prepare(self, dl_manager, download_config=None):
    """Makes the shards that are missing; called by TFDS."""
    del dl_manager
    items, total = self.chosen_items()
    if download_config and download_config.beam_options:
      # Optional, and slow to import.
      from input_pipeline import beam
      beam.write(self, items, download_config)
    else:
      self._write(items, total)
    self.reports = shards.assemble(
        self.options.shards, self, pathlib.Path(self.data_dir))

  def _write(self, items: Iterable[Any], total: int | None) -> None:
    """Makes the shards one after the other, under a progress bar."""
    folder = self.options.shards
    with console.bar(self.name, total, unit='items') as self.bar:
      for shard in shards.cut(items, self.shard_items):
        if shards.find_report(folder, shard):
          # Not of this run: its rate and time left are those of new shards.
          self.bar.initial += len(shard.items)
          self.bar.update(len(shard.items))
        else:
          shards.write(
              folder, shard, self.make_records, self.info.features)

  def save_plan(self, shard: shards.Shard) -> pathlib.Path:
    """Returns the file of a shard's items, for another process to make it."""
    path = self.options.shards / f'{shard.name}.plan'
    path.write_text(json.dumps(
        [shard.split, shard.number, shard.items], default=str))
    return path

  def make_planned(self, path: pathlib.Path) -> None:
    """Makes the shard of a file of `save_plan`."""
    if not self._is_checked:  # This process has seen no item yet.
      self.check_items(self.items())
      self._is_checked = True
    split, number, rows = json.loads(path.read_text())
    shard = shards.Shard(split, number, list(map(self.restore_item, rows)))
    shards.write(
        self.options.shards, shard, self.make_records, self.info.features)


class TextBuilder(_Builder):
  """Builder of `Text` records."""
  VERSION = tfds.core.Version('1.3.0')
  shard_items = 65_536

  def _info(self):
    return self.dataset_info_from_configs(features=records.text_features())

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


class ImageTextBuilder(_Builder):
  """Builder of `ImageText` records: reads pictures, extracts regions."""

  def __init__(self, *, options: Options, **kwargs):
    self.extractor: Any = self.make_extractor(options)
    super().__init__(options=options, **kwargs)
    self.encode = captions_lib.Encoder(self.tokenizer).encode

  @classmethod
  def make_extractor(cls, options: Options) -> Any:
    """Returns what turns pictures into regions, with its manifest."""
    if options.features_format:
      return extracted.ExtractedRegions(options)
    return extractors.make_extractor(options.features)

  def _info(self):
    return self.dataset_info_from_configs(
        features=records.image_text_features(
            self.extractor.feature_dim, self.options.storage))

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
        if other != item.image_id:
          raise errors.UserError(
              f'{self.name}: {other!r} and {item.image_id!r} are the same '
              f'file, {item.path}; allowed: one item a picture')
    if self.options.features_format:
      self.extractor.match([item.image_id for item in items])

  def restore_item(self, row):
    item = ImageItem(*row)
    return item._replace(
        path=pathlib.Path(item.path),
        span=(item.span[0], item.span[1]) if item.span else None)

  def make_records(self, items, report):
    """Yields the records of pictures."""
    for batch in _batched(self._read(items, report), _PICTURES):
      region_sets = self.extractor.extract([tile for _, tile, _ in batch])
      for (item, _, encoded), region_set in zip(
          batch, region_sets, strict=True):
        report.max_class_id = max(
            report.max_class_id, int(region_set.class_ids_R.max(initial=0)))
        report.languages += {caption['language'] for caption in encoded}
        yield {
            'image_id': item.image_id, 'group': item.group,
            'height': region_set.height, 'width': region_set.width,
            'boxes': region_set.boxes_R4.astype(np.float32),
            'class_ids': region_set.class_ids_R.astype(np.int32),
            'captions': encoded,
            **records.pack_features(
                region_set.features_RF, self.options.storage)}

  def _read(self, items: Sequence[ImageItem],
            report: shards.Report) -> Iterator[tuple]:
    """Yields (item, tile, captions) of the items that can be used."""
    for item, outcome in _map_ahead(self._open, items, ahead=2 * _PICTURES):
      self.bar.update()
      encoded = self._encode(item, report)
      if isinstance(outcome, errors.RowError):
        where, detail = item.where, outcome.detail
        self.skip(report, detail if where in detail else f'{where} ({detail})',
                  outcome.reason)
      elif not encoded:
        self.skip(report, item.where, 'no caption')
      else:
        yield item, outcome, encoded

  def _open(self, item: ImageItem):
    """Returns what `extract` takes, or the error that reading ends in."""
    try:
      if not self.options.features_format:
        return self.extractor.cut(self._picture(item))
      if os.path.isfile(item.path):  # Not needed, but nice to see.
        self._picture(item)
      return self.extractor.load(
          item.image_id, None if item.span else item.path)
    except errors.RowError as error:
      if isinstance(error, pictures.PictureError) and not os.path.isfile(
          item.path):
        return errors.RowError(
            error.reason, error.detail + self.files.near(item.path))
      return error

  def _picture(self, item: ImageItem) -> pictures.Picture:
    """Returns an item's picture, of which a small copy is kept."""
    picture = (pictures.read_part(item.path, *item.span) if item.span
               else pictures.read_file(item.path))
    if self.options.copies:
      copies.keep(self.options.copies, item.image_id,
                  None if item.span else item.path, picture.image)
    return picture

  def _encode(self, item: ImageItem, report: shards.Report):
    kept = []
    for language, text in item.captions:
      try:
        self._check_caption(text)
        kept.append((language, text))
      except errors.RowError as error:
        self.skip(report, f'{item.where} ({language})', error.reason)
    return self.encode(kept)

  def _check_caption(self, text: str) -> None:
    if not self.tokenizer.normalise(text):
      raise errors.RowError('empty caption')
    if len(captions_lib.split_words(text)) > captions_lib.MAX_WORDS:
      raise errors.RowError(f'caption over {captions_lib.MAX_WORDS} words')


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
