"""Prints, a line of JSON each, what a few steps give on meshes 1x1 and 4x2.

Run by test_sharding.py with 8 CPU devices: python -m tests.mesh_losses
"""

import functools
import json

from flax import linen as nn
import jax

from m3p_jax import optimizer
from m3p_jax import sharding
from m3p_jax import start
from m3p_jax import train_step
from m3p_jax.model import initial
from m3p_jax.model import m3p
from m3p_jax.objectives import contrastive
from m3p_jax.objectives import masked_lm
from tests import models

FACTORS = ((r'^tokens/', 0.0), (r'^encoder/', 0.5))


def run(data: int, model: int, steps: int = 3) -> None:
  mesh = sharding.make_mesh(data, model, jax.devices()[:data * model])
  schedule = optimizer.make_schedule(
      learning_rate=1e-2, schedule='constant', warmup_steps=2,
      num_train_steps=steps)
  tx = optimizer.make_optimizer(
      schedule, b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.01, clip_norm=1.0,
      rate_factors=FACTORS)
  abstract, create = start.abstract_state(
      models.TINY, mesh=mesh, tx=tx, rate_factors=FACTORS)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  tasks = (train_step.Task('contrastive', contrastive.loss),
           train_step.Task('mc_mlm', masked_lm.loss, 0.5))
  whole = sharding.replicated(mesh)
  step_fn = jax.jit(
      functools.partial(train_step.train_step, model=m3p.M3P(models.TINY),
                        tasks=tasks, tx=tx),
      in_shardings=(shardings, sharding.of_rows(mesh), whole),
      out_shardings=(shardings, whole), donate_argnums=0)
  losses = []
  with jax.set_mesh(mesh):
    state = jax.jit(
        lambda key: create(nn.unbox(initial.init_params(models.TINY, key))),
        out_shardings=shardings)(jax.random.key(0))
    for step in range(steps):
      batches = sharding.put_rows(mesh, {
          task.name: models.batch(rows=8, seed=step) for task in tasks})
      state, metrics = step_fn(state, batches, jax.random.key(1))
      losses.append({name: float(mean.compute())
                     for name, mean in metrics.items()})
  kernel = state.params['encoder']['mlp']['inner']['kernel']
  print(json.dumps({
      'losses': losses, 'shard': kernel.addressable_shards[0].data.shape,
      'shape': kernel.shape}))


if __name__ == '__main__':
  run(1, 1)
  run(4, 2)
