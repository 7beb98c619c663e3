"""One update: which parameters it touches, and what it depends on."""

import dataclasses
import functools
import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m3p_jax import metrics
from m3p_jax import optimizer
from m3p_jax import train_step
from m3p_jax.model import m3p
from m3p_jax.objectives import contrastive
from m3p_jax.objectives import masked_lm
from m3p_jax.objectives import masked_region
from m3p_jax.objectives import masking
from m3p_jax.objectives import matching
from m3p_jax.objectives import retrieval
from tests import models

FACTORS = ((r'^tokens/', 0.0),)
# Each further layer would be compiled as well, in every step here.
CONFIG = dataclasses.replace(models.SHORT, num_layers=1)
TABLE = (CONFIG.padded_vocab_size, CONFIG.width)
TASKS = (train_step.Task('contrastive', contrastive.loss, 2.0),
         train_step.Task('mc_mlm', masked_lm.loss, 0.5))


@functools.cache
def params():
  return jax.jit(lambda key: nn.unbox(m3p.init_params(CONFIG, key)))(
      jax.random.key(0))


def make(tasks=TASKS, factors=FACTORS):
  tx = optimizer.make_optimizer(
      lambda count: 1e-2, b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.01,
      clip_norm=1.0, rate_factors=factors)
  step = functools.partial(
      train_step.train_step, model=m3p.M3P(CONFIG, models.OPTIONS),
      tasks=tasks, tx=tx)
  return train_step.create_state(params(), tx=tx, rate_factors=factors), step


def batches(seed=0):
  return {task.name: models.short_words(models.batch(seed=seed))
          for task in TASKS}


@functools.cache
def jitted():
  state, step = make()
  return state, jax.jit(step)


def computed(state, step):
  """Returns the operations of a compiled step that make an array like TABLE."""
  text = step.lower(state, batches(), jax.random.key(0)).compile().as_text()
  shape = ','.join(map(str, TABLE))
  found = set(re.findall(rf'= f32\[{shape}\]\S* ([\w-]+)\(', text))
  assert 'parameter' in found  # The pattern fits what the compiler prints.
  # The table goes into each task's computation as a part of a tuple.
  return found - {'parameter', 'copy', 'get-tuple-element'}


def test_frozen_parameters_have_no_gradient_and_no_moments():
  state, step = jitted()
  assert TABLE not in [x.shape for x in jax.tree.leaves(state.opt_state)]
  assert not computed(state, step)
  # The check itself sees gradients: they are there when nothing is frozen.
  state, step = make(TASKS[1:], factors=())
  assert {'multiply', 'scatter'} & computed(state, jax.jit(step))


def test_update_changes_what_is_trained_and_nothing_else():
  state, step = jitted()
  after, _ = step(state, batches(), jax.random.key(0))
  assert after.step == 1
  np.testing.assert_array_equal(
      after.frozen['tokens']['embedding'],
      state.frozen['tokens']['embedding'])
  change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()),
                        after.params, state.params)
  assert change['encoder']['mlp']['inner']['kernel'] > 0
  assert change['region_embedding']['box']['kernel'] > 0


def test_a_step_takes_the_gradient_of_the_weighted_losses():
  """Of all parameters: of the word table too, which several tasks read twice.

  A step goes other ways to it: copies of weights, and shares of gradients.
  """
  model = m3p.M3P(models.SHORT)
  losses = (masked_lm.loss, masked_region.loss, matching.loss,
            contrastive.loss, retrieval.loss)
  tasks = tuple(train_step.Task(str(i), loss, 0.5 + i)
                for i, loss in enumerate(losses))
  rows = {task.name: models.short_words(models.batch(seed=i))
          for i, task in enumerate(tasks)}
  before = nn.unbox(m3p.init_params(models.SHORT, jax.random.key(0)))
  key, tx = jax.random.key(1), optax.sgd(1.0)

  def loss(params):
    found = train_step.eval_step(
        params, rows, jax.random.fold_in(key, 0), model=model, tasks=tasks)
    return sum(task.weight_at(0) * found[f'{task.name}/loss'].compute()
               for task in tasks)

  after, _ = jax.jit(functools.partial(
      train_step.train_step, model=model, tasks=tasks, tx=tx))(
          train_step.create_state(before, tx=tx), rows, key)
  for (path, wanted), found in zip(
      jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(before)),
      jax.tree.leaves(jax.tree.map(jnp.subtract, before, after.params)),
      strict=True):
    np.testing.assert_allclose(
        found, wanted, rtol=1e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))


def test_a_kernel_that_would_not_be_trained_is_refused():
  class Head(nn.Module):
    options = models.OPTIONS

    @nn.compact
    def __call__(self, x):
      return nn.Dense(2)(x)

  def loss(model, batch, key):
    del key
    return metrics.Mean(model(batch).sum(), jnp.ones(())), {}

  x, tx = jnp.ones((3, 4)), optax.sgd(1.0)
  state = train_step.create_state(
      Head().init(jax.random.key(0), x)['params'], tx=tx)
  with pytest.raises(TypeError, match='Dense_0 is a Dense, which would not'):
    train_step.train_step(
        state, {'new': x}, jax.random.key(0), model=Head(), tx=tx,
        tasks=(train_step.Task('new', loss, 1.0),))


def test_metrics_are_named_by_task_and_the_loss_is_their_weighted_sum():
  state, step = jitted()
  _, values = step(state, batches(), jax.random.key(0))
  total = 2 * values['contrastive/loss'].compute() + 0.5 * values[
      'mc_mlm/loss'].compute()
  np.testing.assert_allclose(
      values['train/loss'].compute(), total, rtol=1e-6)
  assert 'mc_mlm/accuracy' in values
  assert values['train/gradient_norm'].compute() > 0


def test_a_step_is_a_function_of_state_batch_and_key():
  state, step = jitted()
  first, again = (step(state, batches(), jax.random.key(0)) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  # Another step number gives other masks and dropout.
  later = step(state.replace(step=jnp.int32(7)), batches(), jax.random.key(0))
  assert (later[1]['mc_mlm/loss'].compute()
          != first[1]['mc_mlm/loss'].compute())


def test_jit_compiles_once():
  state, step = jitted()
  for seed in range(3):
    state, _ = step(state, batches(seed), jax.random.key(0))
  assert step._cache_size() == 1


def test_loss_falls_on_one_batch():
  state, step = jitted()
  losses = []
  for _ in range(12):
    state, values = step(state, batches(), jax.random.key(0))
    losses.append(float(values['train/loss'].compute()))
  assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_eval_step_has_no_dropout():
  values = [train_step.eval_step(
      params(), batches(), jax.random.key(key),
      model=m3p.M3P(CONFIG, models.OPTIONS), tasks=TASKS[:1])
            for key in range(2)]
  assert (values[0]['contrastive/loss'].compute()
          == values[1]['contrastive/loss'].compute())


def test_no_weight_is_no_loss():
  def nothing(model, batch, key):
    del batch, key
    return metrics.Mean(0 * model.logit_scale(), jnp.zeros(())), {}

  state, step = make(tasks=(train_step.Task('mc_mlm', nothing),))
  after, values = step(state, batches(), jax.random.key(0))
  assert values['train/loss'].compute() == 0
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


def mean_nats(model, batch, key):
  """Returns the masked words' loss with every word asked for: no draw."""
  del key
  position_BP = jnp.broadcast_to(
      jnp.arange(batch.token_ids_BL.shape[1]), batch.token_ids_BL.shape)
  nats_BP, likeliest_BP = model.token_nats(
      model.encode(batch, read=batch.num_regions + position_BP,
                   deterministic=True).read_BPD, batch.token_ids_BL)
  def mean(values_BP):
    return metrics.Mean((values_BP * batch.text_mask_BL).sum(),
                        batch.text_mask_BL.sum().astype(jnp.float32))
  return mean(nats_BP), {'accuracy': mean(likeliest_BP == batch.token_ids_BL)}


def test_four_parts_of_eight_are_one_of_thirty_two():
  # A plain step of size 1: the change of the parameters is the gradient.
  tx = optimizer.make_optimizer(
      lambda count: 1e-3, b1=0.0, b2=0.0, eps=1.0, weight_decay=0.0,
      clip_norm=0.0, rate_factors=FACTORS)
  rows = models.short_words(models.batch(rows=32))
  # Parts have unequal weights: rows 0, 4, ... are the first part's.
  length_B1 = jnp.where(jnp.arange(32) % 4 == 0, 3, 9)[:, None]
  rows = rows._replace(
      text_mask_BL=rows.text_mask_BL & (jnp.arange(9)[None] < length_B1))
  tasks = (train_step.Task('text', mean_nats, 0.5),
           train_step.Task('joint', mean_nats, 2.0))
  state = train_step.create_state(params(), tx=tx, rate_factors=FACTORS)
  (whole, whole_metrics), (parts, parts_metrics) = (
      jax.jit(functools.partial(
          train_step.train_step, model=m3p.M3P(CONFIG), tasks=tasks,
          tx=tx, accumulation_steps=steps))(
              state, {'text': rows._replace(regions=None), 'joint': rows},
              jax.random.key(3)) for steps in (1, 4))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
  assert whole_metrics.keys() == parts_metrics.keys()
  jax.tree.map(close, parts_metrics, whole_metrics)
  jax.tree.map(close, parts.params, whole.params)


def test_a_scheduled_weight_is_the_weight_times_the_factor():
  tx = optimizer.make_optimizer(
      lambda count: 1e-3, b1=0.0, b2=0.0, eps=1.0, weight_decay=0.0,
      clip_norm=0.0)
  rows = models.short_words(models.batch())
  state = train_step.create_state(params(), tx=tx).replace(
      step=jnp.int32(500))
  points = optimizer.points_schedule([(0, 0), (1_000, 1)])
  (plain, plain_metrics), (scheduled, metrics_now) = (
      jax.jit(functools.partial(
          train_step.train_step, model=m3p.M3P(CONFIG), tx=tx,
          tasks=(train_step.Task('text', mean_nats, *weight),)))(
              state, {'text': rows._replace(regions=None)}, jax.random.key(3))
      for weight in ((1.0,), (2.0, points)))
  # An update is 1e-6 and more; what it is added to may be almost nothing.
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-10),
      (scheduled.params, metrics_now), (plain.params, plain_metrics))


def test_parts_draw_masks_of_their_own():
  rows = jax.tree.map(lambda x: jnp.concatenate([x[:2], x[:2]]),
                      models.short_words(models.batch())._replace(
                          regions=None))
  seen = []

  def loss(model, batch, key):
    masked = masking.mask_tokens(batch, key)
    jax.debug.callback(seen.append, masked.positions_BP)
    return metrics.Mean(model.logit_scale(), jnp.ones(())), {}

  tx = optimizer.make_optimizer(
      lambda count: 1e-2, b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.0,
      clip_norm=1.0)
  step = functools.partial(
      train_step.train_step, model=m3p.M3P(CONFIG, models.OPTIONS), tx=tx,
      accumulation_steps=4, tasks=(train_step.Task('xmlm', loss),))
  jax.block_until_ready(jax.jit(step)(
      train_step.create_state(params(), tx=tx), {'xmlm': rows},
      jax.random.key(0)))
  jax.effects_barrier()
  assert len(seen) == 4
  assert len({tuple(np.ravel(positions)) for positions in seen}) > 1


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_left_out(bad):
  state, step = jitted()
  rows = batches()
  rows['contrastive'] = rows['contrastive']._replace(
      regions=rows['contrastive'].regions._replace(
          features_BRF=rows['contrastive'].regions.features_BRF * bad))
  after, values = step(state, rows, jax.random.key(0))
  assert not np.isfinite(values['train/loss'].compute())
  assert after.step == 1
  jax.tree.map(np.testing.assert_array_equal,
               (after.params, after.opt_state),
               (state.params, state.opt_state))


def test_state_keeps_its_parts_with_other_values():
  state, _ = jitted()
  doubled = state.with_params(
      jax.tree.map(lambda x: 2 * x, state.all_params()))
  assert jax.tree.structure(doubled) == jax.tree.structure(state)
  np.testing.assert_array_equal(
      doubled.frozen['tokens']['embedding'],
      2 * state.frozen['tokens']['embedding'])
  with pytest.raises(KeyError):
    state.with_params({})
