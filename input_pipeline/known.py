"""What records are made from, and which of it was read before.

Prepared data are made again where their key is another one. Then a picture is
known by its path, size and times, and where these differ by its content: what
was read of it, in the data as they were, in another dataset of the same files
or by a run that was killed, is taken from there, so that only what is new is
read.
"""

from collections.abc import Callable, Sequence
import datetime
import functools
import hashlib
import itertools
import json
import os
import pathlib
import stat
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from input_pipeline import copies
from input_pipeline import extracted
from input_pipeline import fingerprint
from input_pipeline import index as index_lib
from input_pipeline import items as items_lib
from input_pipeline import paths
from input_pipeline import sources
from input_pipeline import tokenizer as tokenizer_lib

# Networks that the project's own regions come from; and those of the features
# that are younger than keys which are on disks.
_NETWORKS = ('efficientnet-lite0', 'centernet')
_YOUNGER = {'grid-lite2': 'efficientnet-lite2'}


def key_of(builder_class: Any, folder: pathlib.Path,
           options: items_lib.Options) -> tuple[dict[str, Any], Any]:
  """Returns what decides the records' content, as JSON holds it, and items.

  The user's own files are known by the items that the dataset finds in them,
  and by the pictures that these name. What is fetched is known by its version:
  prepared data can be copied to where nothing can be fetched.
  """
  key: dict[str, Any] = {
      name: getattr(options, name)
      for name in ('limit', 'features', 'features_format', 'storage', 'strict')}
  key |= {'version': str(builder_class.VERSION),
          'tokenizer': tokenizer_lib.load().sha256,
          'languages': sorted(set(options.languages))}
  younger = ({_YOUNGER[options.features]} if options.features in _YOUNGER
             else set())
  fetched: Sequence[str] = sorted(younger) or _NETWORKS
  if options.features_format:
    fetched = ()
    key['features'] = extracted.fingerprint_of(
        options.features_format, options.features)
  for name in ('detector', 'fields', 'source'):  # Older keys have none.
    if getattr(options, name):
      key[name] = getattr(options, name)
  items = None
  if options.raw_dir:
    items = builder_class.list_items(options)
    # Links lead from the prepared data to the pictures' place.
    key['raw_dir'] = str(pathlib.Path(options.raw_dir).resolve())
    key['files'] = files_of(options, items, folder)
    if isinstance(items, list):
      key['items'] = fingerprint.of_rows(
          item.row('') if hasattr(item, 'path') else item
          for item in items)
  else:
    fetched = sorted(
        set(sources.SOURCES) - set(_YOUNGER.values()) | younger)
  return key | {'sources': fingerprint.of(sources.versions(fetched))}, items


def files_of(options: items_lib.Options, items: Any,
             folder: pathlib.Path) -> str:
  """Returns the digest of the items' pictures, or of all files.

  The prepared folder itself may lie among them.
  """
  if not isinstance(items, list):  # Too many to be read for this.
    return fingerprint.of_path(options.raw_dir, skip=[
        os.path.realpath(path) for path in (folder, folder.parent)])
  pictures = [part.path for item in items if hasattr(item, 'path')
              for part in item.parts]
  if not options.features_format:
    real = functools.cache(os.path.realpath)
    return fingerprint.of_rows(
        [real(os.path.dirname(path)), stamp(path)] for path in pictures)
  start = str(pathlib.Path(options.raw_dir))
  return fingerprint.of_files(start, [
      str(path).removeprefix(f'{start}/') for path in pictures])


def stamp(path: str | os.PathLike[str]) -> list[Any] | None:
  """Returns a file's inode, size and times; None where there is none.

  The second time is the inode's, which nobody can set: what was replaced by a
  file of its size and age has another.
  """
  try:
    status = os.stat(path)
  except (OSError, ValueError):  # A name can be none at all.
    return None
  return [status.st_ino, status.st_size, status.st_mtime_ns,
          status.st_ctime_ns] if stat.S_ISREG(status.st_mode) else None


class Row(NamedTuple):
  """What the picture of a record is known by.

  Attributes:
    image_id: of the record.
    path: of the picture's file, without links.
    stamp: see `stamp`.
    content: SHA-256 of the file.
    item: digest of what the record says beside the picture's regions.
    max_class_id: of the regions.
    date: when the picture was taken; '' = not said, as in rows of before.
    look: see `copies.look`; '' in rows of before.
  """
  image_id: str
  path: str
  stamp: list[Any]
  content: str
  item: str
  max_class_id: int
  date: str = ''
  look: str = ''

  def kept(self) -> tuple[str, str, str]:
    """Returns what a picture keeps wherever its file goes."""
    return self.content, self.date, self.look


class Record(NamedTuple):
  """A record that was made before.

  Attributes:
    row: what its picture is known by.
    path: file of records.
    offset: where its content begins there.
    num_bytes: of the content.
    small: the picture's small copy.
  """
  row: Row
  path: str
  offset: int
  num_bytes: int
  small: pathlib.Path

  def read(self) -> bytes:
    """Returns the record, as it was written."""
    with open(self.path, 'rb') as file:
      file.seek(self.offset)
      return file.read(self.num_bytes)


class File(NamedTuple):
  """A file of records that were made before, what of, and where they lie."""
  split: str
  rows: list[Row]
  records: index_lib.Pictures


def is_whole(folder: pathlib.Path) -> bool:
  """Returns whether all records of a prepared dataset are there."""
  damaged = {}
  for path in folder.glob('*/*/index-*.npz'):
    index = index_lib.load_unchecked(path)
    damaged |= index_lib.damaged(index) if index else {}
  for name, (found, expected) in damaged.items():
    logging.warning('%s has %d bytes of %d: what it held is made again', name,
                    found, expected)
  return not damaged


def facts(folder: str | os.PathLike[str], split: str,
          count: int) -> list[dict[str, str]]:
  """Returns each picture's `content`, `date` and `look`, '' = not known.

  Without a camera's date, its file's time.
  """
  path = paths.of(folder) / copies.ROWS.format(split)
  rows = json.loads(path.read_text()) if path.exists() else []
  if len(rows) != count:
    return [{'content': '', 'date': '', 'look': ''}] * count
  return [{'content': row.content, 'look': row.look,
           'date': row.date or datetime.datetime.fromtimestamp(
               row.stamp[2] // 10**9).isoformat()}
          for row in itertools.starmap(Row, rows)]


class Known:
  """The pictures of finished shards, and of data that were made before.

  Attributes:
    files: of those data.
  """

  def __init__(self, shards: pathlib.Path, before: Sequence[pathlib.Path]):
    self._contents: dict[tuple[Any, ...], str] = {}
    self._records: dict[str, Record] = {}
    self.files: list[File] = []
    for folder in before:
      for path in folder.glob(f'*/*/{copies.ROWS.format("*")}'):
        split = path.stem.partition('-')[2]
        self.files += self._add(
            path.with_name(index_lib.file_name(split)), split,
            _read_rows(path), functools.partial(_small_of, folder))
    for path in shards.glob('*.json'):
      self._add(path.with_suffix('.npz'), '', list(itertools.starmap(
          Row, json.loads(path.read_text())['files'])),
                lambda row: shards / f'{row.content}.webp')
    self._places = {
        (file.split, row.item, row.path, *row.stamp): number
        for number, file in enumerate(self.files) for row in file.rows
        if self._records[row.content].small.exists()}

  def _add(self, path: pathlib.Path, split: str, rows: Sequence[Row],
           small: Callable[[Row], pathlib.Path]) -> list[File]:
    """Returns the whole files of an index, whose records are known now."""
    if not rows:
      return []
    try:
      index: Any = index_lib.load_unchecked(path)
      damaged = index_lib.damaged(index)
      found = zip(rows, index.file_N.tolist(), index.offset_N.tolist(),
                  index.bytes_N.tolist(), strict=True)
      for row, file, offset, num_bytes in found:
        if index.paths[file] not in damaged:
          self._contents[tuple(row.stamp)] = row.content
          self._records[row.content] = Record(
              row, index.paths[file], offset + index_lib.HEADER_BYTES,
              num_bytes - index_lib.FRAME_BYTES, small(row))
    except (OSError, ValueError) as error:
      logging.warning('%s: its pictures are read again: %s', path, error)
      return []
    return [File(split, [rows[i] for i in np.flatnonzero(
        index.file_N == file).tolist()], index_lib.part(index, file))
            for file, name in enumerate(index.paths) if name not in damaged]

  def place_of(self, split: str, item: str,
               path: str | os.PathLike[str]) -> int | None:
    """Returns which of the files has this very record, None of none.

    It is that of a split's item, whose digest is given, and of a picture.
    """
    return self._places.get(
        (split, item, os.path.realpath(path), *(stamp(path) or ())))

  def small(self, content: str) -> pathlib.Path:
    """Returns the small copy of a picture that is known."""
    return self._records[content].small

  def find(self, path: str | os.PathLike[str],
           stamp_now: list[Any]) -> Record | None:
    """Returns the record of a picture that is one of these, None of another.
    """
    content = self._contents.get(tuple(stamp_now))
    if content is None and self._records:
      try:
        with open(path, 'rb') as file:
          content = hashlib.file_digest(file, 'sha256').hexdigest()
      except OSError:
        return None  # Reading it says what is wrong.
    found = self._records.get(content or '')
    return found if found and found.small.exists() else None


def _small_of(folder: pathlib.Path, row: Row) -> pathlib.Path:
  return copies.small_of(folder, row.image_id)


def _read_rows(path: pathlib.Path) -> list[Row]:
  """Returns the rows of a set's file, none where it is damaged."""
  try:
    return list(itertools.starmap(Row, json.loads(path.read_text())))
  except (OSError, ValueError, TypeError) as error:
    logging.warning('%s: its pictures are read again: %s', path, error)
    return []
