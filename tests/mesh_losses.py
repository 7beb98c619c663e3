"""Prints, a line of JSON each, what training steps give on several meshes.

Run by test_sharding.py with 8 CPU devices: python -m tests.mesh_losses DATA
FSDP MODEL [DATA FSDP MODEL ...]; as one of two: --coordinator=HOST:PORT ID.
"""

import dataclasses
import functools
import json
import math
import sys

from flax import linen as nn
import jax

from configs import base
from m3p_jax import optimizer
from m3p_jax import sharding
from m3p_jax import shares
from m3p_jax import startup
from m3p_jax import train_step
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from m3p_jax.model import vocabulary
from m3p_jax.objectives import classification
from m3p_jax.objectives import contrastive
from m3p_jax.objectives import masked_lm
from m3p_jax.planning import hlo_cost
from tests import models

FACTORS = ((r'^positions/', 0.0), (r'^encoder/', 0.5))
# Heads that four devices can share; few layers, for most of it is compiling,
# and as many as it takes for a loop: the last is not in it, and one is none.
CONFIG = dataclasses.replace(models.SHORT, num_heads=4, num_layers=3, heads=(
    ('pairs', 'classifier', 3, 2),))
STEPS = 8
ROWS = 8


def first_rows(batch, first, count):
  """Returns some of a batch's rows."""
  return jax.tree.map(lambda x: x[first:first + count], batch)


def run(data: int, fsdp: int, model: int) -> None:
  mesh = sharding.make_mesh(
      data, fsdp, model, jax.devices()[:data * fsdp * model])
  schedule = optimizer.make_schedule(
      learning_rate=1e-3, schedule='constant', warmup_steps=2,
      num_train_steps=STEPS)
  tx = optimizer.make_optimizer(
      schedule, b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.01, clip_norm=1.0,
      rate_factors=FACTORS, adapters=((r'^encoder/mlp/', 2),))
  abstract, create = startup.abstract_state(
      CONFIG, mesh=mesh, tx=tx, rate_factors=FACTORS)
  tasks = (train_step.Task('contrastive', contrastive.loss),
           train_step.Task('mc_mlm', masked_lm.loss, 0.5),
           train_step.Task('pairs', functools.partial(
               classification.loss, head='pairs', num_labels=3)))
  share = ROWS // jax.process_count()

  def batches(seed):
    rows, others = (
        first_rows(models.short_words(models.batch(rows=ROWS, seed=one)),
                   jax.process_index() * share, share)
        for one in (seed, seed + 9))
    pairs = rows._replace(extra={
        'second': others.regions,
        'label_B': rows.token_ids_BL[:, 1] % 3})
    return {'contrastive': rows, 'mc_mlm': rows, 'pairs': pairs}

  # One of the meshes as a TPU's config has it; it changes no number.
  options = dataclasses.replace(
      models.OPTIONS, remat='projections' if model == 2 else 'none')
  step_fn = train_step.jit(
      abstract, mesh, model=m3p.M3P(CONFIG, options), tasks=tasks, tx=tx)
  losses = []
  # On all devices before the loop, as in training: a key moved there by each
  # step is a collective of its own, and two hosts could be at different ones.
  init_key, step_key = jax.jit(
      lambda: (jax.random.key(0), jax.random.key(1)),
      out_shardings=sharding.replicated(mesh))()
  with jax.set_mesh(mesh):
    state = sharding.settle(jax.jit(
        lambda key: create(nn.unbox(m3p.init_params(CONFIG, key))),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract))(
            init_key))
    step_fn = step_fn.lower(
        state, sharding.put_rows(mesh, batches(0)), step_key).compile()
    for step in range(STEPS):
      state, metrics = sharding.settle(step_fn(
          state, sharding.put_rows(mesh, batches(step)), step_key))
      losses.append({name: float(mean.compute())
                     for name, mean in metrics.items()})
  kernel = state.params['encoder']['mlp']['inner']['kernel']
  held, whole = state_bytes(mesh, tx)
  # Of several processes the first alone prints: here each says what it saw.
  print(json.dumps({
      'losses': losses, 'shard': kernel.addressable_shards[0].data.shape,
      'shape': kernel.shape, 'held': held, 'whole': whole,
      'sent_in_loops': largest_sent_in_a_loop(step_fn.as_text()),
      'conditionals': step_fn.as_text().count(' conditional(')}),
        file=sys.__stdout__)


def largest_sent_in_a_loop(text: str) -> int:
  """Returns numbers in the largest array that devices exchange in a loop."""
  program, entry = hlo_cost.parse(text)
  return max((
      math.prod(map(int, shape.split(',')))
      for name, computation in program.items() if name != entry
      for one in computation.values() if one.opcode in hlo_cost.COLLECTIVES
      for _, shape, _ in hlo_cost.ARRAY.findall(one.shape) if shape), default=0)


def largest_array() -> tuple[int, int]:
  """Returns numbers in a step's largest array, and in a part's logits.

  Of a masked language model with XLM-R's whole vocabulary, on a mesh of
  2 × 2 × 2, as it is compiled; nothing is run.
  """
  mesh = sharding.make_mesh(2, 2, 2, jax.devices()[:8])
  tx = optimizer.make_optimizer(
      lambda count: 1e-3, b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.01,
      clip_norm=1.0)
  state, _ = startup.abstract_state(
      models.TINY, mesh=mesh, tx=tx, rate_factors=())
  tasks = train_step.Task('mc_mlm', masked_lm.loss),
  options = model_config.Options(
      dropout=0.0, attention_dropout=0.0, remat='projections')
  rows = sharding.abstract_rows(
      mesh, {'mc_mlm': models.batch(rows=256, length=24)})
  key = jax.eval_shape(lambda: jax.random.key(0))
  with jax.set_mesh(mesh):
    text = train_step.jit(
        state, mesh, model=m3p.M3P(models.TINY, options), tasks=tasks,
        tx=tx).lower(state, rows, key).compile().as_text()
  sizes = {math.prod(map(int, shape.split(','))) for _, shape, _ in
           hlo_cost.ARRAY.findall(text) if shape}
  predictions = 256 // 4 * round(0.15 * 24)
  return max(sizes), predictions * models.TINY.padded_vocab_size // 2


def sampled_losses() -> list[float]:
  """Returns a loss by a sample of the vocabulary, alone and on 2 × 2 × 2.

  And the sum of the squares of each one's gradient by the word table.
  """
  hidden, table, bias = (
      jax.random.normal(jax.random.key(seed), shape)
      for seed, shape in enumerate(((8, 3, 16), (512, 16), (512,))))
  target = jax.random.randint(jax.random.key(3), (8, 3), 0, 500)

  def loss(table, hidden, bias, target):
    sample = vocabulary.draw(jax.random.key(4), target, 200, vocab_size=500)
    return vocabulary.sampled_nats(
        hidden, shares.copies(table, None), bias, target, sample,
        vocab_size=500)[0].sum()

  def measured(*args):
    value, slope = jax.jit(jax.value_and_grad(loss))(*args)
    return [float(value), float((slope ** 2).sum())]

  alone = measured(table, hidden, bias, target)
  mesh = sharding.make_mesh(2, 2, 2, jax.devices()[:8])
  place = lambda x, *axes: jax.device_put(x, jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec(*axes)))
  rows = sharding.RULES['batch']
  with jax.set_mesh(mesh):
    return alone + measured(
        place(table, 'model'), place(hidden, rows), place(bias, 'model'),
        place(target, rows))


def state_bytes(mesh, tx) -> tuple[int, int]:
  """Returns (bytes a device holds, bytes in all) of M3P's training state."""
  config = model_config.geometry(base.model_config())
  leaves = jax.tree.leaves(startup.abstract_state(
      config, mesh=mesh, tx=tx, rate_factors=())[0])
  return tuple(
      sum(math.prod(shape) * leaf.dtype.itemsize
          for leaf, shape in zip(leaves, shapes, strict=True))
      for shapes in ([x.sharding.shard_shape(x.shape) for x in leaves],
                     [x.shape for x in leaves]))


if __name__ == '__main__':
  if sys.argv[1].startswith('--coordinator='):
    sharding.connect(sys.argv[1].partition('=')[2], 2, int(sys.argv[2]))
    run(2, 2, 1)
  else:
    largest, logits = largest_array()
    print(json.dumps({'largest': largest, 'logits': logits,
                      'sampled': sampled_losses()}))
    sizes = list(map(int, sys.argv[1:]))
    for mesh_sizes in zip(sizes[::3], sizes[1::3], sizes[2::3], strict=True):
      run(*mesh_sizes)
