"""Attention and GELU that keep little for their backward pass.

What autodiff keeps of them (probabilities, their float32 forms, erf and its
input) is several times what goes into them, and on a TPU writing and reading
it takes longer than computing it again. Each keeps its inputs instead; see
docs/scaling.md for what that gains. Values equal the plain forms' up to the
rounding of the scores, which are stored in the activations' dtype.
Letters: B rows, T length, S length attended to, D width, H heads, K head
size, N heads of all rows, X lanes, M MLP width.
"""

import functools

import jax
import jax.numpy as jnp

from m3p_jax.model import dropout
from m3p_jax.model import layers
from m3p_jax.model import unseen

_MASKED = jnp.finfo(jnp.bfloat16).min.astype(jnp.float32)
# Numbers that a CPU's widest registers hold at once.
_LANES = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attention(query_BTHK: jax.Array, key_BSHK: jax.Array,
              value_BSHK: jax.Array, mask_BHTS: jax.Array,
              dropout_seed: jax.Array | None, rate: float) -> jax.Array:
  """Returns softmax(query · key) · value [B, T, H, K], summed in float32.

  Args:
    query_BTHK: scaled queries.
    key_BSHK: keys.
    value_BSHK: values.
    mask_BHTS: bool, what may be attended to; axes of size 1 broadcast.
    dropout_seed: [2], of the weights' dropout; None = no dropout.
    rate: share of the weights dropped.
  """

  def forward(query_BTHK, key_BSHK, value_BSHK, mask_BHTS):
    return _attention_forward(query_BTHK, key_BSHK, value_BSHK, mask_BHTS,
                              dropout_seed, rate)[0]

  # An exported program may leave lengths open.
  has_length = isinstance(key_BSHK.shape[1], int)
  return jax.lax.platform_dependent(
      query_BTHK, key_BSHK, value_BSHK, mask_BHTS, default=forward,
      cpu=(aligned_attention if dropout_seed is None and has_length
           else forward))


def aligned_attention(query_BTHK: jax.Array, key_BSHK: jax.Array,
                      value_BSHK: jax.Array, mask_BHTS: jax.Array,
                      ) -> jax.Array:
  """Returns `attention` without dropout, in the form that a CPU is fast in.

  Its library multiplies twice as fast where what is summed, and the columns
  of the result, are a multiple of `_LANES`, and needs no transposed copies of
  keys and values that are contracted over their last and their middle axis.
  """
  num_rows, length, num_heads, head_size = query_BTHK.shape
  padding = -key_BSHK.shape[1] % _LANES

  def split(x_BTHK, padding=0):
    # Reshaped to one batch axis, else copies are made number by number.
    x_NTK = x_BTHK.transpose(0, 2, 1, 3).reshape(
        -1, x_BTHK.shape[1], head_size)
    return jnp.pad(x_NTK, ((0, 0), (0, padding), (0, 0)))

  multiply = functools.partial(
      jnp.einsum, preferred_element_type=jnp.float32)
  scores_NTS = multiply(
      'NTK,NSK->NTS', split(query_BTHK), split(key_BSHK, padding))
  mask_BHTS = jnp.pad(mask_BHTS, ((0, 0), (0, 0), (0, 0), (0, padding)))
  scores_BHTS = jnp.where(
      mask_BHTS, scores_NTS.reshape(num_rows, num_heads, length, -1), _MASKED)
  scores_NTS = scores_BHTS.reshape(scores_NTS.shape)
  # The maximum lane by lane, and the sum as a product: reductions over the
  # last axis take three times as long, and a pass over memory for the mask.
  most_NTX = functools.reduce(jnp.maximum, [
      scores_NTS[..., start:start + _LANES]
      for start in range(0, scores_NTS.shape[-1], _LANES)])
  weights_NTS = jnp.exp(
      scores_NTS - most_NTX.max(-1, keepdims=True)).astype(query_BTHK.dtype)
  total_NTX = multiply('NTS,SX->NTX', weights_NTS, jnp.ones(
      (weights_NTS.shape[-1], _LANES), weights_NTS.dtype))
  mixed_NTK = multiply('NTS,NSK->NTK', weights_NTS, split(
      value_BSHK, padding)) / total_NTX[..., :1]
  return mixed_NTK.astype(query_BTHK.dtype).reshape(
      num_rows, num_heads, length, head_size).transpose(0, 2, 1, 3)


def _scores(query_BTHK, key_BSHK, mask_BHTS):
  scores_BHTS = jnp.einsum('BTHK,BSHK->BHTS', query_BTHK, key_BSHK,
                           preferred_element_type=jnp.float32)
  # Finite, so that a row of padding alone gives numbers, not NaN.
  return jnp.where(mask_BHTS, scores_BHTS, _MASKED).astype(query_BTHK.dtype)


def _kept(dropout_seed, rate, shape):
  """Returns the weights' dropout factors; 1 = all stay."""
  if dropout_seed is None:
    return 1.0
  return dropout.factors(dropout_seed, rate, shape)


def _attention_forward(query_BTHK, key_BSHK, value_BSHK, mask_BHTS,
                       dropout_seed, rate):
  dtype = query_BTHK.dtype
  scores_BHTS = _scores(query_BTHK, key_BSHK, mask_BHTS)
  wide_BHTS = scores_BHTS.astype(jnp.float32)
  log_sum_BHT1 = jax.nn.logsumexp(wide_BHTS, axis=-1, keepdims=True)
  weights_BHTS = jnp.exp(wide_BHTS - log_sum_BHT1) * _kept(
      dropout_seed, rate, scores_BHTS.shape)
  mixed_BTHK = jnp.einsum(
      'BHTS,BSHK->BTHK', weights_BHTS.astype(dtype), value_BSHK,
      preferred_element_type=jnp.float32).astype(dtype)
  return mixed_BTHK, (query_BTHK, key_BSHK, value_BSHK, mask_BHTS,
                      dropout_seed, mixed_BTHK, log_sum_BHT1)


def _attention_backward(rate, saved, gradient_BTHK):
  (query_BTHK, key_BSHK, value_BSHK, mask_BHTS, dropout_seed, mixed_BTHK,
   log_sum_BHT1) = saved
  dtype = query_BTHK.dtype
  query_BTHK, key_BSHK, value_BSHK, mixed_BTHK, log_sum_BHT1 = (
      unseen.again(kept, gradient_BTHK) for kept in (
          query_BTHK, key_BSHK, value_BSHK, mixed_BTHK, log_sum_BHT1))
  einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores_BHTS = _scores(query_BTHK, key_BSHK, mask_BHTS)
  weights_BHTS = jnp.exp(scores_BHTS.astype(jnp.float32) - log_sum_BHT1)
  kept_BHTS = _kept(dropout_seed, rate, scores_BHTS.shape)
  value_gradient = einsum(
      'BHTS,BTHK->BSHK', (weights_BHTS * kept_BHTS).astype(dtype),
      gradient_BTHK)
  # The weights' gradients, averaged by the weights.
  mean_BHT1 = einsum('BTHK,BTHK->BHT', gradient_BTHK, mixed_BTHK)[..., None]
  weights_gradient = einsum(
      'BTHK,BSHK->BHTS', gradient_BTHK, value_BSHK).astype(dtype)
  scores_gradient = (weights_BHTS * (
      weights_gradient.astype(jnp.float32) * kept_BHTS - mean_BHT1)
                     ).astype(dtype)
  query_gradient = einsum('BHTS,BSHK->BTHK', scores_gradient, key_BSHK)
  key_gradient = einsum('BHTS,BTHK->BSHK', scores_gradient, query_BTHK)
  return (query_gradient.astype(dtype), key_gradient.astype(dtype),
          value_gradient.astype(dtype), None, None)


attention.defvjp(_attention_forward, _attention_backward)


@jax.custom_vjp
def gelu_map(inner_BTM: jax.Array, kernel_MD: jax.Array) -> jax.Array:
  """Returns gelu(inner) · kernel [B, T, D]; keeps `inner` alone."""
  return layers.contract('BTM,MD->BTD', gelu(inner_BTM), kernel_MD)


def gelu(x: jax.Array) -> jax.Array:
  """Returns GELU by erf: jax.nn.gelu's erfc takes twice as long on a CPU."""
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5 ** 0.5))).astype(x.dtype)


def _gelu_map_forward(inner_BTM, kernel_MD):
  return gelu_map(inner_BTM, kernel_MD), (inner_BTM, kernel_MD)


def _gelu_map_backward(saved, gradient_BTD):
  inner_BTM, kernel_MD = saved
  _, slope = jax.vjp(gelu, unseen.again(inner_BTM, gradient_BTD))
  active_BTM = unseen.written(gelu, inner_BTM, gradient_BTD)
  kernel_gradient = jnp.einsum('BTM,BTD->MD', active_BTM, gradient_BTD,
                               preferred_element_type=jnp.float32)
  active_gradient = jnp.einsum(
      'BTD,MD->BTM', gradient_BTD, kernel_MD.astype(gradient_BTD.dtype),
      preferred_element_type=jnp.float32).astype(inner_BTM.dtype)
  return slope(active_gradient)[0], kernel_gradient.astype(kernel_MD.dtype)


gelu_map.defvjp(_gelu_map_forward, _gelu_map_backward)
