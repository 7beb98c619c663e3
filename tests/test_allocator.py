"""Memory that one call frees is used by the next, not fetched anew."""

import gc
import subprocess
import sys

import pytest

from m3p_jax import allocator

PROGRAM = """
import resource, sys
import numpy as np
from m3p_jax import allocator

if sys.argv[1] == 'keep':
  assert allocator.keep_freed_memory()

def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(1 << 24)
before = faults()
for _ in range(4):
  np.ones(1 << 24)
print(faults() - before)
"""


@pytest.mark.skipif('linux' not in sys.platform, reason='glibc only')
def test_pages_are_fetched_once():
  def run(mode):
    return int(subprocess.run(
        [sys.executable, '-c', PROGRAM, mode], check=True, text=True,
        stdout=subprocess.PIPE).stdout)

  kept, fetched = run('keep'), run('default')
  if fetched < 1000:
    pytest.skip('this C library keeps memory by itself')
  assert kept < fetched / 10


def test_collecting_later_leaves_the_collector_as_it_was():
  assert gc.isenabled()
  with allocator.collecting_later():
    assert not gc.isenabled()
    with allocator.collecting_later():
      pass
    assert not gc.isenabled()
  assert gc.isenabled()
