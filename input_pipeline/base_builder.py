"""What all datasets share: from items to shards, to a dataset of TFDS.

TFDS's own writer keeps everything to the end and begins again after a kill;
here a dataset grows shard by shard, and TFDS is told of the result.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
import itertools
import json
import os
import pathlib
from typing import Any

from absl import logging
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing
import tqdm

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import items as items_lib
from input_pipeline import shards
from input_pipeline import tokenizer as tokenizer_lib

Version = tfds.core.Version


class _Info(tfds.core.DatasetInfo):
  """What TFDS keeps of a dataset, taken from its builder alone."""

  def initialize_from_bucket(self) -> None:
    """Does not look for ours in TFDS's bucket, which leaves a folder in /tmp.
    """


class Builder(tfds.core.dataset_builder.FileReaderBuilder,
               skip_registration=True):  # type: ignore[call-arg]
  """TFDS builder over the items of one dataset file.

  Attributes:
    reports: split → what was written and what was left out.
    totals: split → items before any was left out; empty where it is unknown.
    notes: what the manifest says of the items beside their number.
    tokenizer: of the model.
    listed: its items, where `list_items` has found them already.
    names: of the shards that its items make.
  """
  # A change of a dataset's records takes a new version: old ones are remade.
  VERSION = tfds.core.Version('1.2.0')
  # TFDS looks beside the code for checksums of downloads; there are none.
  code_path = None
  # What is lost at most when preparation is killed.
  shard_items = 256
  # Records of before stay in their files, and new ones come behind them, where
  # nobody counts on the order of the list.
  follows_arrival = False

  def __init_subclass__(cls, **kwargs):
    # TFDS would call every dataset after the folder, `datasets`.
    cls.name = cls.__module__.rpartition('.')[2]
    # TFDS has sets of its own called `coco`, and others that we read.
    super().__init_subclass__(skip_registration=True, **kwargs)

  def __init__(self, *, options: items_lib.Options,
               data_dir: str | os.PathLike[str]):
    self._begin(options)
    self.tokenizer = tokenizer_lib.load()
    super().__init__(data_dir=data_dir)

  def _begin(self, options: items_lib.Options) -> None:
    self.options = options
    self.reports: dict[str, shards.Report] = {}
    self.totals: Counter[str] = Counter()
    self.notes: dict[str, Any] = {}
    self.bar = tqdm.tqdm(disable=True)
    self.listed: list[Any] | None = None
    self.names: set[str] = set()
    self._is_checked = False

  @classmethod
  def list_items(cls, options: items_lib.Options) -> Iterable[Any]:
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

  @classmethod
  def remembers(cls, options: items_lib.Options) -> bool:
    """Returns whether what was read of a picture is taken from old records.
    """
    del options
    return False

  def key_of(self, items: Sequence[Any]) -> str:
    """Returns what tells a shard of these items from another; '' = its place.
    """
    del items
    return ''

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
        items_lib.SPLITS.index(item.split.partition('_')[0]), item.split,
        hasher.hash_key(item[0]) if item.split == 'train' else 0)), len(items)

  def describe(self, features: tfds.features.FeaturesDict) -> _Info:
    """Returns what `_info` is to return, of records with these features."""
    return _Info(builder=self, features=features)

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
        self.options.shards, self, pathlib.Path(self.data_dir), self.names)

  def cut(self, items: Iterable[Any],
          first: int = 0) -> Iterator[shards.Shard]:
    """Yields the shards of the items, which the dataset will be made of."""
    for shard in shards.cut(items, self.shard_items, self.key_of, first):
      self.names.add(shard.name)
      yield shard

  def _write(self, items: Iterable[Any], total: int | None) -> None:
    """Makes the shards one after the other, under a progress bar."""
    folder = self.options.shards
    with console.bar(self.name, total, unit='items') as self.bar:
      for shard in self.cut(items):
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
        [shard.split, shard.number, shard.items, shard.key], default=str))
    return path

  def make_planned(self, path: pathlib.Path) -> None:
    """Makes the shard of a file of `save_plan`."""
    if not self._is_checked:  # This process has seen no item yet.
      self.check_items(self.items())
      self._is_checked = True
    split, number, rows, key = json.loads(path.read_text())
    shard = shards.Shard(
        split, number, list(map(self.restore_item, rows)), key)
    shards.write(
        self.options.shards, shard, self.make_records, self.info.features)
