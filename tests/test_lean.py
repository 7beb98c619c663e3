"""Backward passes that keep little: the same numbers as autodiff's."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3p_jax.model import dropout
from m3p_jax.model import initial
from m3p_jax.model import layers
from m3p_jax.model import lean
from m3p_jax.model import lean_token_head
from m3p_jax.model import m3p
from m3p_jax.model import token_head
from m3p_jax.objectives import masked_lm
from m3p_jax.objectives import matching
from tests import models


def close(found, wanted, tolerance=2e-6):
  """Asserts that trees of arrays agree, by the size of each array."""
  def check(a, b):
    np.testing.assert_allclose(
        a, b, rtol=0, atol=tolerance * max(float(jnp.abs(b).max()), 1e-3))
  jax.tree.map(check, found, wanted)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def with_gradients(fn, *args):
  """Returns (fn's value, gradients of a random sum of it by all args)."""
  value, pull = jax.vjp(fn, *args)
  return value, pull(normal(99, *value.shape).astype(value.dtype))


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_attention(rate):
  query, key, value = (normal(i, 3, 5 + i, 2, 4) for i in range(3))
  value = value[:, :key.shape[1]]
  # One row may attend to two places, one to all but a hole.
  mask = jnp.ones((3, 1, 1, key.shape[1]), bool).at[0, ..., 2:].set(False)
  mask = mask.at[1, ..., 1].set(False)
  seed = dropout.seeds(jax.random.key(7)) if rate else None

  def plain(query, key, value):
    logits = jnp.einsum('BTHK,BSHK->BHTS', query, key)
    weights = jax.nn.softmax(jnp.where(mask, logits, -1e30))
    if rate:
      weights *= dropout.factors(seed, rate, weights.shape)
    return jnp.einsum('BHTS,BSHK->BTHK', weights, value)

  found = with_gradients(
      lambda *args: lean.attention(*args, mask, seed, rate),
      query, key, value)
  close(found, with_gradients(plain, query, key, value))


@pytest.mark.parametrize('length', [1, 16, 21])
@pytest.mark.parametrize('dtype, tolerance', [
    (jnp.float32, 2e-6), (jnp.bfloat16, 1e-2)])
def test_attention_without_gradients_is_the_same(length, dtype, tolerance):
  query, key, value = (
      normal(i, 3, rows, 2, 8).astype(dtype)
      for i, rows in enumerate((5, length, length)))
  mask = jnp.ones((3, 1, 5, length), bool).at[0, ..., 1:].set(False)
  mask = mask.at[1, :, 2, 3:].set(False)
  kept, _ = jax.vjp(
      lambda query: lean.attention(query, key, value, mask, None, 0.0), query)
  found = jax.jit(lean.attention, static_argnums=(4, 5))(
      query, key, value, mask, None, 0.0)
  assert found.dtype == dtype
  # It is the form for CPUs that was taken.
  np.testing.assert_array_equal(found, jax.jit(lean.aligned_attention)(
      query, key, value, mask))
  close(found.astype(jnp.float32), kept.astype(jnp.float32), tolerance)


def test_attention_of_padding_alone_is_no_nan():
  query = normal(0, 1, 4, 2, 4)

  def attend(*args):
    return lean.attention(*args, jnp.zeros((1, 1, 1, 4), bool), None, 0.0)

  found = with_gradients(attend, query, query, query), attend(
      query, query, query)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_gelu_map():
  args = normal(0, 2, 3, 8) * 3, normal(1, 8, 5)
  close(with_gradients(lean.gelu_map, *args),
        with_gradients(lambda x, kernel: jax.nn.gelu(
            x, approximate=False) @ kernel, *args))


def test_layer_norm():
  args = normal(0, 2, 3, 8) * 3 + 1, normal(1, 8), normal(2, 8)
  found = with_gradients(lambda *a: layers.layer_norm(*a, 1e-5), *args)

  def plain(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-5) * scale + bias

  close(found, with_gradients(plain, *args))


def nats_at_once(hidden, table, bias, target, vocab_size):
  """Returns what `lean_token_head.nats` does, by way of all logits."""
  nats, likeliest = token_head.nats(
      hidden.reshape(2, 3, -1), table, bias, target.reshape(2, 3), vocab_size)
  return nats.ravel(), likeliest.ravel()


@pytest.mark.parametrize('of', [lean_token_head.nats, nats_at_once])
@pytest.mark.parametrize('rows', [
    100, lean_token_head.BLOCK_ROWS, 2 * lean_token_head.BLOCK_ROWS + 30])
def test_token_nats(of, rows):
  vocab_size = rows - 9  # The rest of the table is padding.
  hidden, table, bias = normal(0, 6, 8), normal(1, rows, 8), normal(2, rows)
  target = jax.random.randint(jax.random.key(3), (6,), 0, vocab_size)

  def plain(hidden, table, bias):
    logits = (hidden @ table.T + bias)[:, :vocab_size]
    return -jnp.take_along_axis(
        jax.nn.log_softmax(logits), target[:, None], axis=1)[:, 0]

  found = with_gradients(lambda *args: of(
      *args, target, vocab_size)[0], hidden, table, bias)
  close(found, with_gradients(plain, hidden, table, bias))
  likeliest = of(hidden, table, bias, target, vocab_size)[1]
  np.testing.assert_array_equal(
      likeliest, (hidden @ table.T + bias)[:, :vocab_size].argmax(1))


@pytest.fixture(scope='module')
def loss_and_gradients():
  """Returns a function of `remat`: a loss and its gradients."""
  # What is compared compiles three times: one layer, and no optimizing.
  config = dataclasses.replace(models.SHORT, num_layers=1)
  params = nn.unbox(initial.init_params(config, jax.random.key(0)))
  batch = models.short_words(models.batch())

  def of(remat):
    module = m3p.M3P(dataclasses.replace(config, remat=remat))

    def losses(model):
      masked, _ = masked_lm.loss(model, batch, jax.random.key(1))
      matched, _ = matching.loss(model, batch, jax.random.key(2))
      return masked.compute() + matched.compute()

    return jax.jit(
        jax.value_and_grad(lambda params: nn.apply(losses, module)(
            {'params': params}, rngs={'dropout': jax.random.key(3)})),
        compiler_options={'xla_backend_optimization_level': 0})(params)

  return of


def test_what_is_kept_changes_no_number(loss_and_gradients):
  """With dropout: its masks are drawn again for the backward pass."""
  assert models.SHORT.dropout and models.SHORT.attention_dropout
  wanted = loss_and_gradients('none')
  for remat in ('lean', 'full'):
    close(loss_and_gradients(remat), wanted, 2e-5)
