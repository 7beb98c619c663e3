"""Keeps freed memory for the next run; keeps collectors out of a start."""

from collections.abc import Iterator
import contextlib
import ctypes
import gc
import sys
from typing import Any

# Options of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
  """Returns whether large blocks will be used again, not given back.

  XLA's CPU backend asks for a program's whole memory anew whenever it runs, and
  glibc returns such blocks to the kernel at once: it then clears a gigabyte of
  pages a training step, a quarter of the step's time at E5's geometry, and an
  eighth of the time of exact scoring. The process keeps its peak until it ends.
  Nothing is done where the C library is another one.
  """
  mallopt = _of_glibc('mallopt')
  if mallopt is None:
    return False
  # One arena, since only the main one can grow beyond 64 MB; no trimming.
  return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0),
              mallopt(_TRIM_THRESHOLD, -1)])


def give_back() -> None:
  """Gives freed memory back to the kernel, where the C library can."""
  trim = _of_glibc('malloc_trim')
  if trim:
    trim(0)


@contextlib.contextmanager
def collecting_later() -> Iterator[None]:
  """Does not look for cyclic garbage meanwhile.

  Imports and traces make many objects that stay; looking through all of them
  again and again takes a tenth of their time or more and finds next to nothing.
  """
  was_on = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_on:
      gc.enable()


def _of_glibc(name: str) -> Any:
  """Returns a function of glibc; None where the C library is another one."""
  if not sys.platform.startswith('linux'):
    return None
  return getattr(ctypes.CDLL(None), name, None)
