"""Where the records of a split lie, and what is known of each before reading.

Training draws rows by number, so it must find any record without reading the
ones before it. A table beside the records says where each begins, how many
regions it has and in which languages its captions are: 30 bytes a picture,
which stay in memory where terabytes of features do not.
Letters: N pictures, C captions.
"""

from collections.abc import Iterable, Iterator, Sequence
import os
import pathlib
import struct
from typing import BinaryIO, NamedTuple
import zlib

import numpy as np
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import paths
from input_pipeline import records

# A TFRecord: length (8 bytes), its checksum (4), content, checksum (4).
_HEADER_BYTES, _FRAME_BYTES = 12, 16
_LANGUAGE = 'captions/language'


class Index(NamedTuple):
  """The records of a split, in their order.

  Attributes:
    paths: the files.
    file_N: int32 [N], the record's file.
    offset_N: int64 [N], where it begins there.
    bytes_N: int64 [N], its length in the file.
    num_regions_N: int32 [N].
    image_id_N: int32 [N], hash of the group.
    num_captions_N: int32 [N].
    languages: codes.
    language_C: int32 [C], index of each caption's language, picture by
      picture.
  """
  paths: list[str]
  file_N: np.ndarray
  offset_N: np.ndarray
  bytes_N: np.ndarray
  num_regions_N: np.ndarray
  image_id_N: np.ndarray
  num_captions_N: np.ndarray
  languages: list[str]
  language_C: np.ndarray


def group_id(group: str) -> int:
  """Returns a non-negative 31-bit hash of a group's name."""
  return zlib.crc32(group.encode()) & 0x7FFF_FFFF


def scan(path: str | os.PathLike[str]) -> Index:
  """Returns the index of one file of `ImageText` records, read through once.

  Raises:
    UserError: the file is cut off, or holds other records.
  """
  rows, languages, language_C = [], {}, []
  with paths.of(path).open('rb') as file:
    for offset, length in _frames(file, path):
      file.seek(offset + _HEADER_BYTES)
      feature = tf.train.Example.FromString(
          file.read(length - _FRAME_BYTES)).features.feature
      if 'boxes' not in feature:
        raise errors.UserError(f'{path}: no records of pictures')
      found = feature[_LANGUAGE].bytes_list.value
      (boxes,) = feature['boxes'].bytes_list.value
      (group,) = feature['group'].bytes_list.value
      rows.append((0, offset, length, len(boxes) // records.BOX_BYTES,
                   group_id(group.decode()), len(found)))
      language_C += [
          languages.setdefault(code.decode(), len(languages)) for code in found]
  columns = np.array(rows, np.int64).reshape(-1, 6).T
  return _typed(Index([str(path)], *columns, list(languages),  # type: ignore
                      np.array(language_C, np.int32)))


def _frames(file: BinaryIO, path) -> Iterator[tuple[int, int]]:
  """Yields where each record begins, and its length with the frame."""
  size, offset = paths.size(paths.of(path)), 0
  while offset < size:
    file.seek(offset)
    header = file.read(_HEADER_BYTES)
    length = _FRAME_BYTES + (
        struct.unpack('<Q', header[:8])[0] if len(header) == _HEADER_BYTES
        else size)
    if offset + length > size:
      raise errors.UserError(
          f'{path} is cut off: the record at byte {offset} needs {length} '
          f'bytes, {size - offset} are there')
    yield offset, length
    offset += length


def join(parts: Sequence[Index]) -> Index:
  """Returns the records of all parts, one part after the other."""
  languages = list(dict.fromkeys(
      code for part in parts for code in part.languages))
  first_file = np.cumsum([0] + [len(part.paths) for part in parts])
  renamed = [np.array([languages.index(code) for code in part.languages],
                      np.int32) for part in parts]
  return _typed(Index(
      [path for part in parts for path in part.paths],
      np.concatenate([part.file_N + first for part, first
                      in zip(parts, first_file[:-1], strict=True)]),
      *(np.concatenate(columns) for columns
        in zip(*(part[2:7] for part in parts), strict=True)),  # type: ignore
      languages,
      np.concatenate([names[part.language_C] for names, part
                      in zip(renamed, parts, strict=True)])))


def _typed(index: Index) -> Index:
  return index._replace(**{
      name: getattr(index, name).astype(
          np.int64 if name in ('offset_N', 'bytes_N') else np.int32)
      for name in Index._fields if name not in ('paths', 'languages')})


def save(index: Index, path: pathlib.Path) -> None:
  """Writes an index; of the files' paths only the names, they are beside it."""
  columns = index._asdict() | {
      'paths': np.array([pathlib.Path(name).name for name in index.paths]),
      'languages': np.array(index.languages, np.str_)}
  with open(path, 'wb') as file:
    np.savez(file, **columns)


def load(path: pathlib.Path) -> Index:
  """Returns a saved index; UserError where it does not fit its files."""
  with paths.load(path) as columns:
    index = Index(**{name: columns[name] for name in Index._fields})
  index = index._replace(
      paths=[str(path.parent / name) for name in index.paths],
      languages=[str(code) for code in index.languages])
  expected = np.bincount(index.file_N, weights=index.bytes_N,
                         minlength=len(index.paths))
  for name, size in zip(index.paths, expected, strict=True):
    found = paths.size(paths.of(name))
    if found != size:
      raise errors.UserError(
          f'{name} has {found} bytes; {path.name} says {int(size)}. Prepare '
          'the dataset again')
  return index


def read(folder: pathlib.Path, split: str, paths: Iterable[str]) -> Index:
  """Returns the index of a split: the saved one, else by a look at its files.
  """
  saved = folder / file_name(split)
  return load(saved) if saved.exists() else join([scan(p) for p in paths])


def file_name(split: str) -> str:
  """Returns the name of a split's index file."""
  return f'index-{split}.npz'
