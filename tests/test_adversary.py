"""Adversarial steps: against numbers worked out by hand, and in training."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax import adversary
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import metrics
from m3p_jax import sharding
from m3p_jax import train
from m3p_jax.planning import jobs
from tests import toy

IDS_BL = jnp.asarray([[0, 5, 2, 1], [0, 6, 7, 2]])


class Toy(nn.Module):
  """A word's embedding is its id's row; two calls, one of all rows twice."""

  def setup(self):
    self.table = self.param('table', nn.initializers.normal(1.0), (8, 3))
    self.weight = self.param('weight', nn.initializers.normal(1.0), (3,))

  def _embed_words(self, ids_BL):
    return self.table[ids_BL]

  def __call__(self, ids_BL):
    mask = (ids_BL != 1)[..., None]
    one = (self._embed_words(ids_BL) * mask).sum(1) @ self.weight
    two = self._embed_words(jnp.concatenate([ids_BL, ids_BL])).sum((1, 2))
    return jnp.square(one).sum() + jnp.sin(two).sum()


def total(params, batch, key):
  del key
  value = Toy().apply({'params': params}, batch)
  return value, {'loss': metrics.Mean(value, jnp.float32(2))}


def test_two_steps_by_hand():
  params = Toy().init(jax.random.key(0), IDS_BL)['params']
  settings = adversary.Settings(steps=2, rate=0.3)
  slope, found = jax.jit(adversary.gradient(total, settings))(
      params, IDS_BL, jax.random.key(1))

  def noisy(params, one, two):
    """The same function, written out with noise."""
    table, ids = params['table'], IDS_BL
    mask = (ids != 1)[..., None]
    first = ((table[ids] + one) * mask).sum(1) @ params['weight']
    second = (table[jnp.concatenate([ids, ids])] + two).sum((1, 2))
    return jnp.square(first).sum() + jnp.sin(second).sum()

  one, two = jnp.zeros((2, 4, 3)), jnp.zeros((4, 4, 3))
  values, slopes = [], []
  for _ in range(2):
    value, (by_params, by_one, by_two) = jax.value_and_grad(
        noisy, argnums=(0, 1, 2))(params, one, two)
    values.append(value)
    slopes.append(by_params)
    rows = [np.linalg.norm(np.reshape(x, (len(x), -1)), axis=1)[:, None, None]
            for x in (by_one, by_two)]
    one, two = one + 0.3 * by_one / rows[0], two + 0.3 * by_two / rows[1]
  assert values[1] > values[0]  # It climbs.
  np.testing.assert_allclose(found['loss'].total, sum(values), rtol=1e-5)
  assert found['loss'].weight == 4
  jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-4),
               slope, *slopes)


def test_noise_has_its_norms_row_by_row():
  noise = jax.random.uniform(jax.random.key(2), (2, 4, 3)).at[1].set(0)
  long = adversary._with_norm(0.5, noise)
  np.testing.assert_allclose(adversary._norm(long).ravel(), [0.5, 0], rtol=1e-5)
  np.testing.assert_allclose(
      adversary._norm(adversary._within(0.2, long)).ravel(), [0.2, 0],
      rtol=1e-5)
  np.testing.assert_array_equal(adversary._within(9.0, long), long)
  # What is drawn first is felt, and where it comes to nothing it is not.
  params = Toy().init(jax.random.key(0), IDS_BL)['params']
  values = [float(adversary.gradient(total, adversary.Settings(
      steps=1, first_norm=norm))(params, IDS_BL, jax.random.key(1))[1][
          'loss'].total) for norm in (0.0, 0.5)]
  assert values[0] == pytest.approx(float(total(params, IDS_BL, None)[0]))
  assert values[0] != pytest.approx(values[1])


def test_a_task_is_trained_with_noise(tmp_path):
  """Another run than without, from the same start; two parts as well."""
  def run(name, **changes):
    config = toy.config(('matching', dict(noise=changes.pop('noise', {}))),
                        **changes)
    train.train_and_evaluate(config, tmp_path / name)
    return checkpoint.load(tmp_path / name)[0]['encoder']['mlp']['inner'][
        'kernel']

  # Parts alone change the masks.
  plain = run('plain', accumulation_steps=2)
  noisy = run('noisy', noise=dict(steps=2, rate=1.0), accumulation_steps=2)
  assert np.isfinite(noisy).all() and np.abs(plain - noisy).max() > 0


@pytest.mark.parametrize('noise, message', [
    (dict(step=2), "key of tasks.one.noise 'step'"),
    (dict(steps=0), 'noise.steps is 0; allowed: 1')])
def test_noise_that_cannot_be_meant_is_refused(noise, message):
  config = toy.config()
  config.tasks = dict(one=toy.base.task_config(
      'masked_lm', 'image_text', 4, noise=noise))
  with pytest.raises(errors.UserError, match=message):
    config_lib.check(config)


def test_a_plan_counts_each_climb_and_the_words_that_are_sampled():

  def operations(objective, **task):
    made = toy.config()
    made.model.decoder = objective == 'captioning'
    made.tasks = dict(one=toy.base.task_config(
        objective, 'image_text', 4, **task))
    return jobs.train(made, sharding.make_mesh(
        devices=jax.devices()[:1])).programs[0].model_flops()

  once = operations('masked_lm')
  assert operations('masked_lm', noise=dict(steps=3)) == 3 * once
  # Nearly all products of so small a model are those of 250,002 words.
  assert (0 < operations('captioning', sampled_words=256)
          < operations('captioning', sampled_words=0) / 50)
