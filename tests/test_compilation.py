"""A step is compiled beside other work, once, for the shapes it will get."""

import pathlib
import threading

import jax
import jax.numpy as jnp
import pytest

from m3p_jax.training import compilation
from m3p_jax.training import start


def test_traced_once_and_donates():
  traced = []

  def add(state, x):
    traced.append(x)
    return state + x

  state = first = jnp.zeros(3)
  shape = jax.ShapeDtypeStruct((3,), 'float32')
  step = compilation.Compiled(
      jax.jit(add, donate_argnums=0), shape, shape)
  for _ in range(3):
    state = step(state, jnp.ones(3))
  assert state.tolist() == [3, 3, 3]
  assert len(traced) == 1 and first.is_deleted()


def test_gives_memory_back_before_the_first_two_runs(monkeypatch):
  events = []
  monkeypatch.setattr(
      compilation.allocator, 'give_back', lambda: events.append('give back'))
  step = compilation.Compiled(
      jax.jit(lambda x: x + 1), jax.ShapeDtypeStruct((), 'float32'))
  for run in range(3):
    step(jnp.float32(run))
    events.append(run)
  assert events == ['give back', 0, 'give back', 1, 2]


class _Slow:
  """Stands for a jitted function whose compilation ends when it is told to."""

  def __init__(self, error=None):
    self.may_end, self.error = threading.Event(), error

  def lower(self):
    return self

  def compile(self):
    assert self.may_end.wait(60)
    if self.error:
      raise self.error
    return lambda: 'value'


def test_compiles_while_other_work_goes_on():
  slow = _Slow()
  step = compilation.Compiled(slow)
  slow.may_end.set()  # Reached before compiling has ended.
  assert step() == 'value'


def test_what_went_wrong_is_raised_where_the_step_is_needed():
  slow = _Slow(RuntimeError('no memory'))
  step = compilation.Compiled(slow)
  slow.may_end.set()
  with pytest.raises(RuntimeError, match='no memory'):
    step()


@pytest.mark.parametrize('chosen', [None, 'of the user'])
def test_compiled_steps_are_kept_where_the_user_wants_them(cache, chosen):
  name = 'jax_compilation_cache_dir'
  before = getattr(jax.config, name)
  try:
    jax.config.update(name, chosen)
    start.use_compilation_cache()
    found = getattr(jax.config, name)
  finally:
    jax.config.update(name, before)
  assert pathlib.Path(found) == pathlib.Path(chosen or cache / 'compiled')
