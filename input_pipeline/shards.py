"""Writes the records of a dataset in shards, so that a killed run goes on.

The items of a split are cut into shards of a fixed number. A shard's file
appears whole, and after it a report: a shard with a report is never made
again. What a shard holds depends on its items alone, so any number of workers
can make them, on one machine or (see `beam.py`) on many.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
import dataclasses
import itertools
import json
import pathlib
from typing import Any
import uuid

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from input_pipeline import copies
from input_pipeline import index as index_lib
from input_pipeline import known


@dataclasses.dataclass(frozen=True)
class Shard:
  """Some items of a split."""
  split: str
  number: int
  items: list[Any]
  key: str = ''  # Tells it from another shard of that number; '' = nothing.

  @property
  def name(self) -> str:
    """Returns what its files are called."""
    name = f'{self.split}-{self.number:06d}'
    return f'{name}-{self.key}' if self.key else name


@dataclasses.dataclass
class Report:
  """What is known of a finished shard.

  Attributes:
    num_items: items, usable or not.
    num_records: a picture each, or many sentences.
    num_texts: sentences in the records.
    num_bytes: of the records.
    languages: found in the records.
    skipped: (item, reason) of each thing left out.
    max_class_id: of the regions in the records.
    files: what each record's picture is known by, see `known.Row`; none where
      nobody will ask.
  """
  num_items: int = 0
  num_records: int = 0
  num_texts: int = 0
  num_bytes: int = 0
  languages: list[str] = dataclasses.field(default_factory=list)
  skipped: list[list[str]] = dataclasses.field(default_factory=list)
  max_class_id: int = 0
  files: list[Any] = dataclasses.field(default_factory=list)

  @property
  def num_used(self) -> int:
    """Returns how many items the records hold."""
    return self.num_texts or self.num_records


# (items, report) → records, or what was written of them before; fills in the
# languages and what was left out.
MakeRecords = Callable[
    [Sequence[Any], Report], Iterable[dict[str, Any] | bytes]]


def cut(items: Iterable[Any], size: int,
        key: Callable[[list[Any]], str] = lambda items: '',
        first: int = 0) -> Iterator[Shard]:
  """Yields shards of `size` items of one split, each split's last smaller.

  `first` is the number of each split's first.
  """
  waiting: dict[str, list[Any]] = {}
  numbers: dict[str, Iterator[int]] = {}
  for item in items:
    found = waiting.setdefault(item.split, [])
    found.append(item)
    if len(found) == size:
      number = next(numbers.setdefault(
          item.split, itertools.count(first)))
      del waiting[item.split]
      yield Shard(item.split, number, found, key(found))
  for split, found in waiting.items():
    yield Shard(split, next(numbers.setdefault(
        split, itertools.count(first))), found, key(found))


def find_report(folder: pathlib.Path, shard: Shard) -> Report | None:
  """Returns the report of a finished shard, None for one still to be made."""
  path = folder / f'{shard.name}.json'
  if not path.exists() or not path.with_suffix('.tfrecord').exists():
    return None
  return Report(**json.loads(path.read_text()))


def write(folder: pathlib.Path, shard: Shard, make_records: MakeRecords,
          features: tfds.features.FeaturesDict) -> None:
  """Writes a shard's records, their index, and its report.

  Raises:
    OSError: they could not be written.
  """
  report = Report(num_items=len(shard.items))
  serializer = example_serializer.ExampleSerializer(
      features.get_serialized_info())
  path = folder / f'{shard.name}.tfrecord'
  draft = path.with_suffix(f'.draft-{uuid.uuid4().hex}')
  try:
    with tf.io.TFRecordWriter(str(draft)) as writer:
      for record in make_records(shard.items, report):
        content = record if isinstance(
            record, bytes) else serializer.get_tf_example(
                features.encode_example(record)).SerializeToString(
                    deterministic=True)  # Equal items, equal files.
        writer.write(content)
        report.num_records += 1
        report.num_bytes += len(content)
  except tf.errors.OpError as error:
    draft.unlink(missing_ok=True)
    raise OSError(error.message) from error
  except BaseException:
    draft.unlink(missing_ok=True)
    raise
  draft.rename(path)
  if report.num_records:
    index_lib.save(index_lib.scan(path), path.with_suffix('.npz'))
  _finish(path, report)


def keep(folder: pathlib.Path, shard: Shard, file: known.File) -> None:
  """Makes a shard of a file whose records are its items', without a copy."""
  path, index = folder / f'{shard.name}.tfrecord', file.records
  copies.link(pathlib.Path(index.paths[0]), path)
  index_lib.save(index._replace(paths=[str(path)]), path.with_suffix('.npz'))
  _finish(path, Report(
      num_items=len(shard.items), num_records=len(file.rows),
      num_bytes=int((index.bytes_N - index_lib.FRAME_BYTES).sum()),
      languages=[index.languages[i] for i in np.unique(index.language_C)],
      max_class_id=max(row.max_class_id for row in file.rows),
      files=[list(row) for row in file.rows]))


def _finish(path: pathlib.Path, report: Report) -> None:
  report.languages = sorted(set(report.languages))
  draft = path.with_suffix(f'.draft-{uuid.uuid4().hex}')
  draft.write_text(json.dumps(vars(report)))
  draft.rename(path.with_suffix('.json'))


def assemble(folder: pathlib.Path, builder: tfds.core.DatasetBuilder,
             target: pathlib.Path,
             names: Collection[str] | None = None) -> dict[str, Report]:
  """Returns a report of each split, after the shards were moved to `target`.

  The builder's `info` learns of the splits.

  Args:
    names: of the shards; None = all that are there.
  """
  found: dict[str, list[tuple[pathlib.Path, Report]]] = {}
  for path in sorted(folder.glob('*.json')):
    if names is None or path.stem in names:
      report = Report(**json.loads(path.read_text()))
      found.setdefault(path.stem.partition('-')[0], []).append((path, report))
  reports = {split: _add([report for _, report in made])
             for split, made in found.items()}
  splits = []
  for split, made in sorted(found.items()):
    used = [(path, report) for path, report in made if report.num_records]
    if used:
      template = tfds.core.ShardedFileTemplate(
          data_dir=target, dataset_name=builder.name, split=split,
          filetype_suffix='tfrecord')
      _move([path for path, _ in used], template)
      if reports[split].files:
        (target / copies.ROWS.format(split)).write_text(
            json.dumps(reports[split].files))
      splits.append(tfds.core.SplitInfo(
          name=split, num_bytes=reports[split].num_bytes,
          shard_lengths=[report.num_records for _, report in used],
          filename_template=template))
  builder.info.set_splits(tfds.core.SplitDict(splits))
  return reports


def _move(found: Sequence[pathlib.Path],
          template: tfds.core.ShardedFileTemplate) -> None:
  """Gives the shards of a split their final names, and one index."""
  indices = []
  for i, path in enumerate(found):
    final = pathlib.Path(template.sharded_filepath(
        shard_index=i, num_shards=len(found)))
    draft = path.with_suffix('.tfrecord')
    indices.append(index_lib.read(
        path.with_suffix('.npz'), [draft])._replace(paths=[str(final)]))
    draft.rename(final)
  index_lib.save(
      index_lib.join(indices),
      pathlib.Path(template.data_dir) / index_lib.file_name(template.split))


def _add(reports: Sequence[Report]) -> Report:
  """Returns one report of several shards."""
  return Report(
      **{name: sum(getattr(report, name) for report in reports)
         for name in ('num_items', 'num_records', 'num_texts', 'num_bytes')},
      languages=sorted(
          {name for report in reports for name in report.languages}),
      skipped=[row for report in reports for row in report.skipped],
      files=[row for report in reports for row in report.files],
      max_class_id=max(
          (report.max_class_id for report in reports), default=0))
