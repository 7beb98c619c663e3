"""Tells the C library to keep freed memory for the next training step."""

from collections.abc import Callable
import ctypes
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


def compile_first(function: Any) -> Callable[..., Any]:
  """Returns the jitted function, of which the first call decides the shapes.

  That call compiles, and gives back what compiling has freed before anything
  is computed: in a heap that is kept, those gigabytes would lie beside the
  step's own for ever.

  Args:
    function: of `jax.jit`.
  """
  compiled = None

  def run(*args):
    nonlocal compiled
    if compiled is None:
      compiled = function.lower(*args).compile()
      trim = _of_glibc('malloc_trim')
      if trim:
        trim(0)
    return compiled(*args)

  return run


def _of_glibc(name: str) -> Any:
  """Returns a function of glibc; None where the C library is another one."""
  if not sys.platform.startswith('linux'):
    return None
  return getattr(ctypes.CDLL(None), name, None)
