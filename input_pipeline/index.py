"""Where the records of a split lie, and what is known of each before reading.

Training draws rows by number, so it must find any record without reading the
ones before it. A table beside the records says where each begins and what it
holds: some 40 bytes a picture, and 32 for a record of text, which has dozens of
sentences. They stay in memory where terabytes of features and text do not.
Letters: N records, C captions, or records of text.
"""

from collections.abc import Iterable, Iterator, Sequence
import os
import pathlib
import struct
from typing import Any, BinaryIO, NamedTuple
import zlib

import numpy as np
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import paths
from input_pipeline import records
from input_pipeline import tokenizer

# A TFRecord: length (8 bytes), its checksum (4), content, checksum (4).
HEADER_BYTES, FRAME_BYTES = 12, 16


class Pictures(NamedTuple):
  """The records of a split of pictures, in their order.

  Attributes:
    paths: the files.
    file_N: int32 [N], the record's file.
    offset_N: int64 [N], where it begins there.
    bytes_N: int64 [N], its length in the file.
    num_regions_N: int32 [N], of the picture, or the larger of two.
    image_id_N: int32 [N], hash of the group.
    num_captions_N: int32 [N].
    num_ids_C: int32 [C], token ids of each caption, picture by picture.
    languages: codes.
    language_C: int32 [C], index of each caption's language.
  """
  paths: list[str]
  file_N: np.ndarray
  offset_N: np.ndarray
  bytes_N: np.ndarray
  num_regions_N: np.ndarray
  image_id_N: np.ndarray
  num_captions_N: np.ndarray
  num_ids_C: np.ndarray
  languages: list[str]
  language_C: np.ndarray


class Texts(NamedTuple):
  """The records of a split of text, in their order.

  Attributes:
    num_texts_N: int32 [N], sentences in the record.
    num_ids_C: int32 [N], their token ids, with `</s>` behind each.
    language_C: int32 [N], index of the record's language.
    Others: as of `Pictures`.
  """
  paths: list[str]
  file_N: np.ndarray
  offset_N: np.ndarray
  bytes_N: np.ndarray
  num_texts_N: np.ndarray
  num_ids_C: np.ndarray
  languages: list[str]
  language_C: np.ndarray


Index = Pictures | Texts
_LANGUAGE = {Pictures: 'captions/language', Texts: 'language'}


def group_id(group: str) -> int:
  """Returns a non-negative 31-bit hash of a group's name."""
  return zlib.crc32(group.encode()) & 0x7FFF_FFFF


def scan(path: str | os.PathLike[str]) -> Index:
  """Returns the index of one file of records, read through once.

  Raises:
    UserError: the file is cut off.
  """
  rows, num_ids, codes = [], [], []
  kind: Any = Texts
  with paths.of(path).open('rb') as file:
    for offset, length in _frames(file, path):
      file.seek(offset + HEADER_BYTES)
      feature = tf.train.Example.FromString(
          file.read(length - FRAME_BYTES)).features.feature
      kind = Pictures if 'image_id' in feature else Texts
      look = _look_at_picture if kind is Pictures else _look_at_text
      *numbers, found = look(feature)
      rows.append((0, offset, length, *numbers))
      num_ids += found
      codes += feature[_LANGUAGE[kind]].bytes_list.value
  languages, language_C = np.unique(codes, return_inverse=True)
  return _typed(kind(
      [str(path)], *np.array(rows, np.int64).T, np.array(num_ids),
      [code.decode() for code in languages], language_C))


def _look_at_text(feature: Any) -> tuple:
  ids = np.array(feature['ids'].int64_list.value)
  return (ids == tokenizer.EOS).sum(), [len(ids)]


def _look_at_picture(feature: Any) -> tuple:
  # Of texts without a picture there are none; of two pictures, the larger.
  num_regions = max([0, *(
      len(boxes) // records.BOX_BYTES for name in ('boxes', 'second/boxes')
      for boxes in feature[name].bytes_list.value)])
  (group,) = feature['group'].bytes_list.value
  num_words, word_lengths = (
      feature[f'captions/{name}'].int64_list.value
      for name in ('keys/ragged_row_lengths_0',
                   'word_lengths/ragged_flat_values'))
  ends_C = np.append(0, np.cumsum(word_lengths))[np.cumsum(num_words)]
  return (num_regions, group_id(group.decode()), len(num_words),
          list(np.diff(ends_C, prepend=0)))


def _frames(file: BinaryIO, path) -> Iterator[tuple[int, int]]:
  """Yields where each record begins, and its length with the frame."""
  size, offset = paths.size(paths.of(path)), 0
  while offset < size:
    file.seek(offset)
    header = file.read(HEADER_BYTES)
    length = FRAME_BYTES + (
        struct.unpack('<Q', header[:8])[0] if len(header) == HEADER_BYTES
        else size)
    if offset + length > size:
      raise errors.UserError(
          f'{path} is cut off: the record at byte {offset} needs {length} '
          f'bytes, {size - offset} are there')
    yield offset, length
    offset += length


def join(parts: Sequence[Any]) -> Any:
  """Returns the records of all parts of a kind, one part after the other."""
  languages = list(dict.fromkeys(
      code for part in parts for code in part.languages))
  first_file = np.cumsum([0] + [len(part.paths) for part in parts])
  parts = [part._replace(
      file_N=part.file_N + first, language_C=np.array(
          [languages.index(code) for code in part.languages], np.int32)[
              part.language_C])
           for part, first in zip(parts, first_file[:-1], strict=True)]
  return _typed(parts[0]._replace(
      paths=[path for part in parts for path in part.paths],
      languages=languages,
      **{name: np.concatenate([getattr(part, name) for part in parts])
         for name in _columns(parts[0])}))


def part(index: Pictures, file: int) -> Pictures:
  """Returns the records of one of the files."""
  is_there = {'N': index.file_N == file}
  is_there['C'] = np.repeat(is_there['N'], index.num_captions_N)
  found = index._replace(paths=[index.paths[file]], **{
      name: getattr(index, name)[is_there[name[-1]]]
      for name in _columns(index)})
  return found._replace(file_N=np.zeros_like(found.file_N))


def _columns(kind: Any) -> list[str]:
  return [name for name in kind._fields if name not in ('paths', 'languages')]


def _typed(index: Any) -> Any:
  return index._replace(**{
      name: getattr(index, name).astype(
          np.int64 if name in ('offset_N', 'bytes_N') else np.int32)
      for name in _columns(index)})


def save(index: Index, path: pathlib.Path) -> None:
  """Writes an index; of the files' paths only the names, they are beside it."""
  columns = index._asdict() | {
      'paths': np.array([pathlib.Path(name).name for name in index.paths]),
      'languages': np.array(index.languages, np.str_)}
  with open(path, 'wb') as file:
    np.savez(file, **columns)


def load(path: pathlib.Path) -> Index | None:
  """Returns a saved index, None for one of version 1, which had less.

  Raises:
    UserError: it does not fit its files.
  """
  index = load_unchecked(path)
  for name, (found, expected) in damaged(index).items() if index else ():
    raise errors.UserError(
        f'{name} has {found} bytes; {path.name} says {expected}. Prepare the '
        'dataset again')
  return index


def damaged(index: Index) -> dict[str, tuple[int, int]]:
  """Returns {file: its bytes, and those that it should have} of what differs.
  """
  expected = np.bincount(index.file_N, weights=index.bytes_N,
                         minlength=len(index.paths)).astype(np.int64).tolist()
  sizes = [paths.size(paths.of(name)) for name in index.paths]
  return {name: (size, wanted) for name, size, wanted in zip(
      index.paths, sizes, expected, strict=True) if size != wanted}


def load_unchecked(path: pathlib.Path) -> Index | None:
  """Returns what `load` does, whatever became of the files."""
  with paths.load(path) as columns:
    kind = Texts if 'num_texts_N' in columns else Pictures
    if not set(kind._fields) <= set(columns):
      return None
    index = kind(**{name: columns[name] for name in kind._fields})
  return index._replace(
      paths=[str(path.parent / name) for name in index.paths],
      languages=[str(code) for code in index.languages])


def read(saved: pathlib.Path, paths: Iterable[str | os.PathLike[str]],
         ) -> Index:
  """Returns the index of files: the saved one, else by a look at them."""
  found = load(saved) if saved.exists() else None
  return found or join([scan(path) for path in paths])


def file_name(split: str) -> str:
  """Returns the name of a split's index file."""
  return f'index-{split}.npz'
