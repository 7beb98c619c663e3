"""Work done a little ahead of the one who needs it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import itertools
import os
from typing import TypeVar

T = TypeVar('T')
R = TypeVar('R')


def batched(iterable: Iterable[T], size: int) -> Iterator[list[T]]:
  """Yields lists of `size` items, the last one shorter."""
  iterator = iter(iterable)
  while batch := list(itertools.islice(iterator, size)):
    yield batch


def map_ahead(fn: Callable[[T], R], items: Iterable[T], *,
              ahead: int) -> Iterator[tuple[T, R]]:
  """Yields (item, fn(item)) in order.

  Args:
    fn: called in threads: worth it for what works outside the GIL, as Pillow
      and resvg do.
    items: what it is called with.
    ahead: results that are made before they are asked for.
  """
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    waiting: deque[tuple[T, futures.Future[R]]] = deque()
    for item in items:
      waiting.append((item, pool.submit(fn, item)))
      if len(waiting) > ahead:
        first, future = waiting.popleft()
        yield first, future.result()
    for first, future in waiting:
      yield first, future.result()
