"""Keeps freed memory for the next step; keeps collectors out of a start."""

from collections.abc import Callable, Iterator
import contextlib
import ctypes
import gc
import sys
from typing import Any

# Options of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
  """Returns whether large blocks will be used again, not given back.

  XLA's CPU backend asks for a step's whole memory anew at every step, and
  glibc returns such blocks to the kernel at once: it then clears a gigabyte of
  pages a step, a quarter of a step's time at E5's geometry. The process keeps
  its peak until it ends. Nothing is done where the C library is another one.
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


class Compiled:
  """A jitted function that is compiled once, for the shapes it is given first.

  It gives back what compiling has freed before anything is computed: in a heap
  that is kept, those gigabytes would lie beside the step's own for ever.
  """

  def __init__(self, function: Any):
    """Compiles nothing yet; `function` is of `jax.jit`."""
    self._function = function
    self._compiled: Callable[..., Any] | None = None

  def compile(self, *args: Any) -> Callable[..., Any]:
    """Returns the program, compiled for arguments like these the first time."""
    if self._compiled is None:
      with collecting_later():
        self._compiled = self._function.lower(*args).compile()
      give_back()
    return self._compiled

  def __call__(self, *args: Any) -> Any:
    """Returns the function's value."""
    return self.compile(*args)(*args)


def _of_glibc(name: str) -> Any:
  """Returns a function of glibc; None where the C library is another one."""
  if not sys.platform.startswith('linux'):
    return None
  return getattr(ctypes.CDLL(None), name, None)
