"""Memory that one call frees is used by the next, not fetched anew."""

import gc
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from m3p_jax.training import allocator

PROGRAM = """
import resource, sys
import numpy as np
from m3p_jax.training import allocator

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


def test_compiled_first_is_compiled_once_and_keeps_what_was_donated():
  traced = []

  def add(state, x):
    traced.append(x)
    return state + x

  step = allocator.Compiled(jax.jit(add, donate_argnums=0))
  state = first = jnp.zeros(3)
  for _ in range(3):
    state = step(state, jnp.ones(3))
  assert state.tolist() == [3, 3, 3]
  assert len(traced) == 1 and first.is_deleted()


def test_collecting_later_leaves_the_collector_as_it_was():
  assert gc.isenabled()
  with allocator.collecting_later():
    assert not gc.isenabled()
    with allocator.collecting_later():
      pass
    assert not gc.isenabled()
  assert gc.isenabled()
