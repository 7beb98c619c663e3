"""Gradients of a batch in parts are those of the batch."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from m3p_jax import optimizer
from m3p_jax import train_step
from m3p_jax.model import initial
from m3p_jax.model import m3p
from m3p_jax.training import start
from tests import models

CONFIG = dataclasses.replace(models.SHORT, dropout=0.0, attention_dropout=0.0)
TASKS = start.make_tasks(base.ConfigDict(dict(
    xmlm=base.task_config('masked_lm', 'text', 32),
    mc_mlm=base.task_config('masked_lm', 'image_text', 32, weight=0.5),
    mc_mrm=base.task_config('masked_region', 'image_text', 32),
    mc_vlm=base.task_config('matching', 'image_text', 32, weight=2.0))))


@functools.cache
def updated(steps):
  """Returns (parameters, metrics) after one update in so many parts."""
  params = nn.unbox(initial.init_params(CONFIG, jax.random.key(0)))
  factors = ((r'^tokens/', 0.0),)
  # A plain step of size 1: the change of the parameters is the gradient.
  tx = optimizer.make_optimizer(
      lambda count: 1e-3, b1=0.0, b2=0.0, eps=1.0, weight_decay=0.0,
      clip_norm=0.0, rate_factors=factors)
  batch = models.short_words(models.batch(rows=32))
  # Rows with fewer words have fewer masks: parts have unequal weights.
  length = jnp.where(jnp.arange(32) < 8, 4, 9)[:, None]
  batch = batch._replace(text_mask_BL=batch.text_mask_BL & (
      jnp.arange(9)[None] < length))
  batches = {task.name: batch for task in TASKS}
  batches['xmlm'] = batch._replace(regions=None)
  state = train_step.create_state(params, tx=tx, rate_factors=factors)
  state, metrics = jax.jit(functools.partial(
      train_step.train_step, model=m3p.M3P(CONFIG), tasks=TASKS, tx=tx,
      accumulation_steps=steps))(state, batches, jax.random.key(3))
  return state.params, {name: float(mean.compute())
                        for name, mean in metrics.items()}


def test_four_parts_of_eight_are_one_of_thirty_two():
  whole_params, whole = updated(1)
  parts_params, parts = updated(4)
  assert whole.keys() == parts.keys()
  for name, value in whole.items():
    np.testing.assert_allclose(parts[name], value, rtol=2e-5, err_msg=name)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
      parts_params, whole_params)
