"""A query's cosines with all pictures: those of the best first, and exact.

A million vectors take as long as memory takes to bring them. Where FAISS is
installed it looks at a quarter of their bytes; what these cannot decide, the
vectors do, so that nothing changes but the time.
Letters: I pictures, N some of them, E shared space of the dual encoder.
"""

from collections.abc import Iterator
import functools
import importlib.util
import itertools
import mmap
import os
from typing import Any

import numpy as np

from m3p_jax.evaluation import nearest

# Of a product in float32, however its terms are summed up.
_ROUNDING = 1e-4
# Pictures that FAISS finds, at least and at most: few take it as long, and for
# more than these all cosines are computed sooner.
_LEAST, _MOST = 1024, 16_384
_BLOCK = 16_384
# Vectors that are read at a time where the others are not in memory.
_ROWS = 128


class Gallery:
  """The pictures' unit vectors, and FAISS's index of them where it pays.

  Attributes:
    vectors_IE: float32.
    error: no cosine by that index is further from the vectors' own.
  """

  def __init__(self, vectors_IE: np.ndarray):
    self.vectors_IE = vectors_IE
    self._bytes: Any = None
    self.error = 0.0
    if (len(vectors_IE) >= nearest.FAISS_FROM
        and importlib.util.find_spec('faiss') is not None):
      self._learn()

  def find(self, vector_E: np.ndarray, count: int,
           ) -> tuple[np.ndarray, float] | None:
    """Returns `count` numbers, and what no other picture's cosine is above.

    None where FAISS is not used, or does not pay.
    """
    if not self._bytes or not count <= min(_MOST, len(self.vectors_IE)):
      return None
    score_1N, number_1N = self._bytes.search(vector_E[None], count)
    return number_1N[0], float(score_1N[0, -1]) + self.error

  def rows(self, numbers_N: np.ndarray) -> np.ndarray:
    """Returns the vectors of some pictures."""
    if self._bytes is None:
      return self.vectors_IE[numbers_N]
    rows_NE = np.empty((len(numbers_N), self.vectors_IE.shape[1]), np.float32)
    for start in range(0, len(numbers_N), _ROWS):
      part = slice(start, start + _ROWS)
      rows_NE[part] = self.vectors_IE[numbers_N[part]]
      self._forget()  # Each row brings its neighbours, a megabyte of them.
    return rows_NE

  def _learn(self) -> None:
    import faiss  # Optional: requirements-faiss.txt.
    count, dim = self.vectors_IE.shape
    # All that FAISS learns is the range of each number.
    ranges = [(block_NE.min(0), block_NE.max(0))
              for block_NE in self._blocks(0, count)]
    range_2E = np.stack([np.min([low_E for low_E, _ in ranges], 0),
                         np.max([high_E for _, high_E in ranges], 0)])
    # A query is one thread's work in each part.
    make: Any = faiss.IndexShards  # Whose types know one argument of three.
    self._bytes = make(dim, True, True)
    bounds = np.linspace(0, count, (os.cpu_count() or 1) + 1).astype(int)
    for first, last in itertools.pairwise(bounds):
      part = faiss.IndexScalarQuantizer(
          dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
      part.train(range_2E)
      for block_NE in self._blocks(first, last):
        codes = part.sa_encode(block_NE)
        part.add_sa_codes(codes)
        self.error = max(self.error, _ROUNDING + float(np.linalg.norm(
            part.sa_decode(codes) - block_NE, axis=1).max()))
      self._bytes.add_shard(part)

  def _blocks(self, first: int, last: int) -> Iterator[np.ndarray]:
    for start in range(first, last, _BLOCK):
      yield np.array(self.vectors_IE[start:min(start + _BLOCK, last)])
      self._forget()

  def _forget(self) -> None:
    # The file's pages would count as memory of this process, beside FAISS's.
    if isinstance(self.vectors_IE.base, mmap.mmap):
      self.vectors_IE.base.madvise(mmap.MADV_DONTNEED)


class Cosines:
  """A query's cosines with the pictures of a gallery."""

  def __init__(self, gallery: Gallery, vector_E: np.ndarray):
    self._gallery, self._vector_E = gallery, vector_E
    self.count = len(gallery.vectors_IE)

  def of(self, numbers: Any) -> np.ndarray:
    """Returns those with some pictures, float64 [N]."""
    numbers_N = np.asarray(numbers, np.int64)
    return np.concatenate([np.einsum(
        'NE,E->N', self._gallery.rows(numbers_N[start:start + _BLOCK]),
        self._vector_E, dtype=np.float64)
                           for start in range(0, len(numbers_N) or 1, _BLOCK)])

  def best(self, k: int, is_allowed_I: np.ndarray | None = None) -> np.ndarray:
    """Returns the numbers of the k nearest; of equal ones the first is first.

    Without sorting the others, which may be millions.
    """
    if is_allowed_I is None:
      k, count = min(k, self.count), max(_LEAST, 2 * k)
      while found := self._gallery.find(self._vector_E, count):
        chosen_N = self._sorted(found[0])[:k]
        if self.of(chosen_N[-1:])[0] > found[1]:
          return chosen_N
        count *= 4
      rough_I = self._rough_I
    else:
      k = min(k, int(is_allowed_I.sum()))
      rough_I = np.where(is_allowed_I, self._rough_I, -np.inf)
    if k < 1:
      return np.zeros(0, np.int64)
    least = np.partition(rough_I, self.count - k)[self.count - k]
    return self._sorted(
        np.flatnonzero(rough_I >= least - 2 * _ROUNDING))[:k]

  def _sorted(self, numbers_N: np.ndarray) -> np.ndarray:
    return numbers_N[np.lexsort((numbers_N, -self.of(numbers_N)))]

  @functools.cached_property
  def _rough_I(self) -> np.ndarray:
    # By BLAS: as fast as memory is.
    return np.asarray(self._gallery.vectors_IE) @ self._vector_E
