"""Tells the C library to keep freed memory for the next training step."""

import ctypes
import sys

# Options of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
  """Returns whether large blocks will be used again, not given back.

  XLA's CPU backend asks for a step's whole memory anew at every step, and
  glibc returns such blocks to the kernel at once: it then clears a gigabyte of
  pages a step, a quarter of a step's time at E5's geometry. The process keeps
  its peak until it ends. Nothing is done where the C library is another one.
  """
  if not sys.platform.startswith('linux'):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return False
  # One arena, since only the main one can grow beyond 64 MB; no trimming.
  return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0),
              mallopt(_TRIM_THRESHOLD, -1)])
