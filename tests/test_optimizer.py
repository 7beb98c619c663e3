"""Schedules, rates, decay and clipping of the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from input_pipeline import errors
from m3p_jax import optimizer
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

OPTIONS = dict(b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.0, clip_norm=0.0)


def schedule(name, warmup_steps=4, num_train_steps=20):
  return optimizer.make_schedule(
      learning_rate=2.0, schedule=name, warmup_steps=warmup_steps,
      num_train_steps=num_train_steps)


@pytest.mark.parametrize('name', optimizer.SCHEDULES)
def test_warm_up_rises_in_equal_steps_to_the_peak(name):
  rates = [float(schedule(name)(count)) for count in range(4)]
  np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0], rtol=1e-6)


def test_rates_after_the_warm_up():
  # The n-th update has count n - 1.
  assert schedule('constant')(19) == 2.0
  np.testing.assert_allclose(schedule('inverse_sqrt')(15), 2 * (4 / 16) ** 0.5)
  np.testing.assert_allclose(schedule('cosine')(11), 1.0, rtol=1e-6)
  np.testing.assert_allclose(schedule('cosine')(19), 0.0, atol=1e-6)
  np.testing.assert_allclose(schedule('cosine')(99), 0.0, atol=1e-6)


def test_no_warm_up_starts_at_the_peak():
  for name in optimizer.SCHEDULES:
    assert float(schedule(name, 0, 1000)(0)) == pytest.approx(2.0, rel=1e-4)


def test_unknown_schedule_is_named():
  with pytest.raises(errors.UserError, match=r'linear.*inverse_sqrt, cosine'):
    schedule('linear')


def params():
  return {'tokens': {'embedding': jnp.ones((4, 3))},
          'encoder': {'mlp': {'kernel': jnp.ones((3, 3)),
                              'bias': jnp.ones(3)}},
          'head': {'kernel': jnp.ones((3, 2))}}


def test_split_and_merge_are_inverse_and_first_match_wins():
  factors = ((r'^tokens/', 0.0), (r'kernel', 0.5), (r'', 0.0))
  trainable, frozen = optimizer.split(params(), factors)
  assert sorted(frozen) == ['encoder', 'tokens']
  assert list(frozen['encoder']['mlp']) == ['bias']
  assert list(trainable['encoder']['mlp']) == ['kernel']
  whole = optimizer.merge(trainable, frozen)
  assert jax.tree.structure(whole) == jax.tree.structure(params())


def test_a_factor_goes_from_point_to_point():
  factor = optimizer.points_schedule([(0, 0), (1_000, 1), (2_000, .5)])
  assert [float(factor(step)) for step in (0, 250, 1_000, 1_500, 9_999)] == [
      0, .25, 1, .75, .5]


def test_pattern_without_a_parameter_is_an_error():
  with pytest.raises(errors.UserError, match=r'tokenz.*tokens/embedding'):
    optimizer.check_rate_factors(params(), ((r'^tokenz/', 0.0),))
  with pytest.raises(errors.UserError, match='negative'):
    optimizer.check_rate_factors(params(), ((r'^tokens/', -1.0),))


def one_update(**options):
  tx = optimizer.make_optimizer(lambda count: 0.1, **(OPTIONS | options))
  gradients = jax.tree.map(jnp.ones_like, params())
  return tx.update(gradients, tx.init(params()), params())


def test_decay_spares_all_but_kernels():
  plain, _ = one_update()
  decayed, _ = one_update(weight_decay=0.5)
  change = jax.tree.map(lambda a, b: float((a - b).mean()), plain, decayed)
  assert change['tokens']['embedding'] == 0
  assert change['encoder']['mlp']['bias'] == 0
  assert change['head']['kernel'] == pytest.approx(0.1 * 0.5, rel=1e-5)


def test_rate_factors_scale_the_whole_update():
  plain, _ = one_update(weight_decay=0.5)
  scaled, _ = one_update(weight_decay=0.5,
                         rate_factors=((r'^encoder/', 0.25),))
  np.testing.assert_allclose(scaled['encoder']['mlp']['kernel'],
                             0.25 * plain['encoder']['mlp']['kernel'])
  np.testing.assert_allclose(scaled['head']['kernel'], plain['head']['kernel'])


def test_moments_are_float32_and_see_clipped_gradients():
  _, state = one_update(clip_norm=1.0)
  mu = state[1].mu
  # 30 gradients of 1, scaled to norm 1; the first moment is (1 - b1) of that.
  assert mu['head']['kernel'].dtype == jnp.float32
  np.testing.assert_allclose(mu['head']['kernel'], 0.1 / 30 ** 0.5, rtol=1e-5)


def test_lower_layers_learn_more_slowly():
  plain, _ = one_update()
  scaled, _ = one_update(layer_decay=0.5, num_layers=3)
  share = jax.tree.map(lambda a, b: np.asarray(a / b), scaled, plain)
  np.testing.assert_allclose(share['head']['kernel'], 1)
  # Three layers in a stack, the last one last.
  for name in ('kernel', 'bias'):
    rows = share['encoder']['mlp'][name].reshape(3, -1)
    np.testing.assert_allclose(rows.T, np.tile(
        [1 / 8, 1 / 4, 1 / 2], (rows.shape[1], 1)))
  np.testing.assert_allclose(share['tokens']['embedding'], 1 / 16)


def test_every_parameter_is_a_layer_an_entrance_or_a_head():
  named = set(m3p.abstract_params(model_config.ModelConfig(refiner_layers=1)))
  heads = {'pooler', 'match', 'token_bias', 'region_regression', 'region_class',
           'text_projection', 'region_projection', 'image_projection',
           'log_scale'}
  assert named == {'encoder', *optimizer._ENTRANCE, *heads}


def test_average_of_three_updates_by_hand():
  tx = optax.chain(optax.scale(-1.0), optimizer.average(0.15))
  weights = {'a': jnp.asarray(10.0)}
  state = tx.init(weights)
  for _ in range(3):
    updates, state = tx.update({'a': jnp.asarray(2.0)}, state, weights)
    weights = optax.apply_updates(weights, updates)
  # Weights are 8, 6, 4; the old average keeps 1/10, then the limit of 0.15
  # instead of 2/11 and 3/12.
  expected = 0.1 * 10 + 0.9 * 8
  expected = 0.15 * expected + 0.85 * 6
  expected = 0.15 * expected + 0.85 * 4
  np.testing.assert_allclose(state[1].average['a'], expected, rtol=1e-6)
