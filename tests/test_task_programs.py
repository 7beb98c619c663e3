"""A step of several programs is the step of one."""

import dataclasses
import functools

from flax import linen as nn
import jax
import numpy as np
import optax
import pytest

from m3p_jax import sharding
from m3p_jax import train_step
from m3p_jax.model import initial
from m3p_jax.model import m3p
from m3p_jax.objectives import contrastive
from m3p_jax.objectives import masked_lm
from m3p_jax.training import compilation
from m3p_jax.training import start
from m3p_jax.training import task_programs
from tests import models

# Two of one loss, not beside each other, and an option as configs give it.
TASKS = (
    train_step.Task('captions', functools.partial(masked_lm.loss), 0.5),
    train_step.Task('contrastive', contrastive.loss),
    train_step.Task('sentences', functools.partial(
        masked_lm.loss, mask_rate=0.3)))
FACTORS = ((r'^positions/', 0.0),)


def setting(dtype: str, num_layers: int = 2):
  """Returns (state, (abstract state, mesh), rows, the step's keywords)."""
  config = dataclasses.replace(
      models.SHORT, dtype=dtype, num_layers=num_layers)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  # Adam's first steps are of one size: it would turn rounding into steps.
  tx = optax.sgd(0.1, momentum=0.9)
  abstract, create = start.abstract_state(
      config, mesh=mesh, tx=tx, rate_factors=FACTORS)
  rows = {task.name: models.short_words(models.batch(seed=seed))
          for seed, task in enumerate(TASKS)}
  step = dict(model=m3p.M3P(config), tasks=TASKS, tx=tx)
  state = jax.jit(lambda key: create(nn.unbox(
      initial.init_params(config, key))))(jax.random.key(0))
  return state, (abstract, mesh), rows, step


def run(step, state, rows):
  """Returns (state, metrics) after two steps; what they read is given away."""
  for _ in range(2):
    before = state
    state, metrics = step(state, rows, jax.random.key(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.opt_state))
  return jax.device_get((state, metrics))


@pytest.mark.parametrize(('dtype', 'tolerance'), [
    ('float32', 2e-4), ('bfloat16', 2e-2)])
def test_states_and_metrics_are_those_of_one_program(dtype, tolerance):
  state, place, rows, options = setting(dtype, num_layers=1)
  other = jax.tree.map(lambda x: x.copy(), state)
  # Compiled before it is called: a second call has another state, and would
  # trace anew.
  found, wanted = (
      run(make(*place, **options).lower(
          begin, rows, jax.random.key(1)).compile(), begin, rows)
      for make, begin in ((task_programs.Step, state),
                          (train_step.jit, other)))
  assert found[1].keys() == wanted[1].keys()
  jax.tree.map(functools.partial(
      np.testing.assert_allclose, rtol=tolerance, atol=tolerance / 100),
               found, wanted)


@pytest.mark.parametrize(('dtype', 'accumulation_steps', 'programs'), [
    ('bfloat16', 1, 3), ('bfloat16', 2, 1), ('float32', 1, 1)])
def test_each_loss_has_a_program_where_layers_are_no_loop(
    dtype, accumulation_steps, programs, monkeypatch):
  _, place, rows, options = setting(dtype)
  compiled = []
  monkeypatch.setattr(
      jax.stages.Lowered, 'compile', lambda self: compiled.append(self) or self)
  compilation.begin_step(
      *place, rows, jax.random.key(1),
      accumulation_steps=accumulation_steps, **options).wait()
  assert len(compiled) == programs
