"""Dropout: how much it keeps, by how much it scales, and what it depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3p_jax.model import dropout

RATE = 0.1
SHAPE = 50, 41, 64


def make_seeds(*shape, number=0):
  return dropout.seeds(jax.random.key(number), *shape)


def kept(seed, rate=RATE, shape=SHAPE):
  """Returns the mask of numbers that stay, as an array of 0 and 1."""
  return np.asarray(dropout.factors(seed, rate, shape) > 0, float)


def assert_independent(first, second):
  """Correlation within four deviations of what chance gives."""
  found = np.corrcoef(first.ravel(), second.ravel())[0, 1]
  assert abs(found) < 4 / first.size ** 0.5


@pytest.mark.parametrize('rate', [0.01, RATE, 0.5])
def test_it_keeps_the_share_and_scales_by_it(rate):
  found = np.asarray(dropout.factors(make_seeds(), rate, SHAPE))
  np.testing.assert_allclose(np.unique(found), [0, 1 / (1 - rate)], rtol=1e-6)
  deviation = (rate * (1 - rate) / found.size) ** 0.5
  assert abs((found > 0).mean() - (1 - rate)) < 4 * deviation


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_neighbours_are_independent(axis):
  mask = np.moveaxis(kept(make_seeds()), axis, 0)
  for distance in (1, 2, 16):
    assert_independent(mask[distance:], mask[:-distance])


def test_how_many_of_a_row_stay_varies_as_chance_has_it():
  counts = kept(make_seeds(), shape=(4096, 64)).sum(-1)
  variance = RATE * (1 - RATE) * 64
  # Variance of a variance of n numbers, nearly normal: 2 / n.
  assert abs(counts.var() / variance - 1) < 4 * (2 / counts.size) ** 0.5


@pytest.mark.parametrize('change', [
    lambda seed: seed.at[0].add(1), lambda seed: seed.at[1].add(1),
    lambda seed: make_seeds(number=1)])
def test_another_seed_gives_an_independent_mask(change):
  seed = make_seeds()
  np.testing.assert_array_equal(kept(seed), kept(seed))
  first, second = kept(seed).ravel(), kept(change(seed)).ravel()
  # As it stands, and moved by one: no shifted copy.
  assert_independent(first, second)
  if (change(seed)[1] != seed[1]).any():
    assert_independent(first[1:], second[:-1])
    assert_independent(first[:-1], second[1:])


def test_seeds_are_distinct():
  found = np.asarray(make_seeds(12, 5)).reshape(-1, 2)
  assert len(np.unique(found, axis=0)) == 60


def test_gradients_pass_where_numbers_do():
  x, seed = jnp.ones((3, 4, 8)), make_seeds()
  y, pull = jax.vjp(lambda x: dropout.drop(x, seed, 0.5), x)
  np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], y)
  assert 0 < (y == 0).sum() < y.size


def test_nothing_is_dropped_without_a_seed_or_a_rate():
  x = jnp.ones((2, 3))
  assert dropout.drop(x, None, 0.1) is x
  assert dropout.drop(x, make_seeds(), 0.0) is x


def test_the_dtype_stays():
  x = jnp.ones((2, 3), jnp.bfloat16)
  assert dropout.drop(x, make_seeds(), 0.5).dtype == jnp.bfloat16


def test_the_gradient_is_dropped_where_the_number_was():
  seed, x = make_seeds(), jax.random.normal(jax.random.key(1), SHAPE)

  def total(x):
    return (dropout.drop(x, seed, RATE) * jnp.cos(x)).sum()

  factors = dropout.factors(seed, RATE, SHAPE)
  np.testing.assert_allclose(
      jax.jit(jax.grad(total))(x),
      factors * (jnp.cos(x) - x * jnp.sin(x)), rtol=1e-5, atol=1e-6)
