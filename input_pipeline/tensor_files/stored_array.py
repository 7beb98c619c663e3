"""Arrays that stay in their file until their numbers are asked for.

Read, not mapped: pages of a mapped file count as memory of the process, and a
file that shrinks meanwhile would kill it.

Letters: N, numbers in a row.
"""

from collections.abc import Iterator
import dataclasses
import math
import pathlib

import numpy as np

from input_pipeline import errors

_PIECE_BYTES = 2**20


@dataclasses.dataclass
class Storage:
  """Numbers in a row in a file.

  Attributes:
    path: of the file.
    dtype: of the numbers, in the byte order of this machine.
    size: how many.
    offset: byte of the file where they begin.
    swapped: whether the file has the other byte order.
  """

  path: pathlib.Path
  dtype: np.dtype
  size: int
  offset: int = 0
  swapped: bool = False

  @property
  def piece_size(self) -> int:
    """Numbers in a megabyte."""
    return _PIECE_BYTES // self.dtype.itemsize

  def pieces(self, first: int, count: int) -> Iterator[np.ndarray]:
    """Gives the numbers from `first` on, a megabyte at a time.

    Raises:
      UserError: the file became shorter since it was opened.
    """
    with self.path.open('rb') as file:
      file.seek(self.offset + first * self.dtype.itemsize)
      while count:
        wanted = min(count, self.piece_size)
        piece_N = np.fromfile(file, self.dtype, wanted)
        if piece_N.size < wanted:
          raise errors.UserError(f'{self.path}: cut off while it was read')
        count -= wanted
        yield piece_N.byteswap() if self.swapped else piece_N


@dataclasses.dataclass(frozen=True)
class StoredArray:
  """An array whose numbers are in a file; equal ones are the same numbers.

  Attributes:
    storage: where its numbers are.
    first: index there of its first number.
    shape: of the array.
    strides: for each axis, numbers from one entry to the next.
  """

  storage: Storage
  first: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  @classmethod
  def rows(cls, storage: Storage, shape: tuple[int, ...]) -> 'StoredArray':
    """Returns the array that is a whole storage, row by row."""
    return cls(storage, 0, shape, _row_strides(shape))

  @property
  def dtype(self) -> np.dtype:
    return self.storage.dtype

  @property
  def ndim(self) -> int:
    return len(self.shape)

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def end(self) -> int:
    """Index in the storage just after the last number that it reads."""
    if not self.size:
      return self.first
    return self.first + 1 + sum(
        (n - 1) * step
        for n, step in zip(self.shape, self.strides, strict=True)
    )

  def pieces(self) -> Iterator[np.ndarray]:
    """Gives all numbers, the last axis fastest, a megabyte at a time."""
    pieces = self.storage.pieces(self.first, self.end - self.first)
    # Along an axis of one entry there is no step.
    steps = [
        (step, by_row)
        for n, step, by_row in zip(
            self.shape, self.strides, _row_strides(self.shape), strict=True
        )
        if n > 1
    ]
    if all(step == by_row for step, by_row in steps):
      yield from pieces
    elif self.size:
      flat_N = self.view(np.concatenate(list(pieces))).ravel()
      for start in range(0, self.size, self.storage.piece_size):
        yield flat_N[start : start + self.storage.piece_size]

  def view(self, numbers_N: np.ndarray) -> np.ndarray:
    """Returns the array as a read-only view of numbers that start at its own.

    Args:
      numbers_N: those of the storage from `first` to `end`, or more.
    """
    return np.lib.stride_tricks.as_strided(
        numbers_N,
        self.shape,
        tuple(step * numbers_N.itemsize for step in self.strides),
        writeable=False,
    )

  def copy_to(self, target: np.ndarray) -> None:
    """Writes the numbers into a contiguous array of as many, of any dtype."""
    flat_N, start = target.reshape(-1), 0
    for piece_N in self.pieces():
      flat_N[start : start + piece_N.size] = piece_N
      start += piece_N.size

  def read(self) -> np.ndarray:
    """Returns the array in memory."""
    array = np.empty(self.shape, self.dtype)
    self.copy_to(array)
    return array

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # It always is one.
    return self.read().astype(dtype or self.dtype, copy=False)


def _row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
