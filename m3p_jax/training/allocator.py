"""Tells the C library to keep freed memory for the next training step."""

import ctypes
import pathlib
import sys

# Options of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
# Device files of TPUs and GPUs. JAX itself can only be asked by starting it.
_ACCELERATORS = ('accel*', 'nvidia[0-9]*', 'kfd', 'vfio/[0-9]*')


def keep_freed_memory_on_cpus() -> bool:
  """Returns `keep_freed_memory()` where no accelerator is, else False.

  To be called as early as a program can: a thread that has an arena of its own
  keeps it, and what such a thread frees goes back to the kernel. Beside an
  accelerator many threads prepare data, and one arena would hold them up.
  """
  devices = pathlib.Path('/dev')
  if any(next(devices.glob(name), None) for name in _ACCELERATORS):
    return False
  return keep_freed_memory()


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
