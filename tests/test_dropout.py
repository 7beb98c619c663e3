"""Dropout: how much it keeps, by how much it scales, and what it depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3p_jax.model import dropout

RATE = 0.1
SHAPE = 50, 41, 64  # An odd length: half of one draw's words is left over.


def draw(seed=0, rate=RATE, shape=SHAPE):
  return np.asarray(dropout.factors(jax.random.key(seed), rate, shape))


def test_it_keeps_the_share_and_scales_by_it():
  found = draw()
  kept = round((1 - RATE) * 65_536) / 65_536
  assert set(np.unique(found)) == {np.float32(0), np.float32(1 / kept)}
  deviation = (kept * (1 - kept) / found.size) ** 0.5
  assert abs((found > 0).mean() - kept) < 4 * deviation


def test_numbers_of_one_word_are_independent():
  # Both halves of a random word are used: 21 positions apart.
  first, second = draw()[:, :20] > 0, draw()[:, 21:] > 0
  assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_a_draw_is_a_function_of_its_key():
  np.testing.assert_array_equal(draw(3), draw(3))
  assert (draw(3) != draw(4)).any()


def test_gradients_pass_where_numbers_do():
  x = jnp.ones((3, 4, 8))
  layer = dropout.Dropout(0.5)
  rngs = {'dropout': jax.random.key(0)}
  y, pull = jax.vjp(lambda x: layer.apply({}, x, False, rngs=rngs), x)
  np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], y)
  assert 0 < (y == 0).sum() < y.size


@pytest.mark.parametrize('rate, deterministic', [(0.1, True), (0.0, False)])
def test_nothing_is_dropped_or_drawn(rate, deterministic):
  # Without a key: a draw would be an error.
  x = jnp.ones((2, 3))
  assert dropout.Dropout(rate, deterministic).apply({}, x) is x
