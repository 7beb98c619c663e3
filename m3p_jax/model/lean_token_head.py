"""The masked tokens' loss in blocks of the vocabulary, split over the mesh.

Each device scores its predictions against its part of the word table, a
block of rows at a time, and keeps of a block its running maximum and sum:
logits over the whole vocabulary never exist. The backward pass makes each
block again.
Letters: N predictions, D width, V rows of the word table, C rows of a block.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from m3p_jax import sharding

# A block's float32 logits of a thousand predictions take 8 MB: they stay in a
# TPU's on-chip memory.
BLOCK_ROWS = 2_048
_DATA, _MODEL = sharding.MESH_AXES


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def nats(hidden_ND: jax.Array, table_VD: jax.Array, bias_V: jax.Array,
         target_N: jax.Array, vocab_size: int) -> tuple[jax.Array, jax.Array]:
  """Returns ([N] float32 nats of the targets, [N] likeliest token).

  Args:
    hidden_ND: activations; N divides by the devices of mesh axis `data`.
    table_VD: float32 word table.
    bias_V: float32.
    target_N: int32 tokens.
    vocab_size: rows of the table from here on are padding.
  """
  return _forward(hidden_ND, table_VD, bias_V, target_N, vocab_size)[0]


def _forward(hidden_ND, table_VD, bias_V, target_N, vocab_size):
  table_VD = table_VD.astype(hidden_ND.dtype)
  log_sum_N, right_N, likeliest_N = _split(
      functools.partial(_forward_part, vocab_size=vocab_size),
      (P(_DATA), P(_MODEL), P(_MODEL), P(_DATA)), (P(_DATA),) * 3)(
          hidden_ND, table_VD, bias_V, target_N)
  return ((log_sum_N - right_N, likeliest_N),
          (hidden_ND, table_VD, bias_V, target_N, log_sum_N))


def _backward(vocab_size, saved, gradients):
  nats_gradient_N, _ = gradients
  hidden_gradient, table_gradient, bias_gradient = _split(
      functools.partial(_backward_part, vocab_size=vocab_size),
      (P(_DATA), P(_MODEL), P(_MODEL), P(_DATA), P(_DATA), P(_DATA)),
      (P(_DATA), P(_MODEL), P(_MODEL)))(*saved, nats_gradient_N)
  return hidden_gradient, table_gradient, bias_gradient, None


nats.defvjp(_forward, _backward)


def _split(part, in_specs, out_specs):
  """Returns `part` on each device's part of the arrays."""
  if jax.sharding.get_abstract_mesh().empty:
    return functools.partial(part, sums=lambda x, axis: x,
                             maxima=lambda x, axis: x, index=lambda axis: 0)
  return jax.shard_map(
      functools.partial(part, sums=jax.lax.psum, maxima=jax.lax.pmax,
                        index=jax.lax.axis_index),
      in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _blocks(block, carry, num_rows):
  """Returns the carry after block(carry, first row, number of rows) of all."""
  size = min(BLOCK_ROWS, num_rows)
  count = num_rows // size
  carry = jax.lax.fori_loop(
      0, count, lambda i, carry: block(carry, i * size, size), carry)
  if num_rows % size:
    carry = block(carry, count * size, num_rows % size)
  return carry


def _block_logits(hidden_ND, table_VD, bias_V, first, size, offset,
                  vocab_size):
  """Returns (float32 logits [N, C], the block of the table, its tokens)."""
  table_CD = jax.lax.dynamic_slice_in_dim(table_VD, first, size)
  bias_C = jax.lax.dynamic_slice_in_dim(bias_V, first, size)
  token_C = offset + first + jnp.arange(size)
  logits_NC = bias_C + jnp.einsum(
      'ND,CD->NC', hidden_ND, table_CD, preferred_element_type=jnp.float32)
  return (jnp.where(token_C < vocab_size, logits_NC, -jnp.inf), table_CD,
          token_C)


def _forward_part(hidden_ND, table_VD, bias_V, target_N, *, vocab_size, sums,
                  maxima, index):
  num_rows = table_VD.shape[0]
  offset = index(_MODEL) * num_rows

  def block(carry, first, size):
    highest_N, sum_N, right_N, likeliest_N = carry
    logits_NC, _, token_C = _block_logits(
        hidden_ND, table_VD, bias_V, first, size, offset, vocab_size)
    new_N = jnp.maximum(highest_N, logits_NC.max(1))
    sum_N = sum_N * jnp.exp(highest_N - new_N) + jnp.exp(
        logits_NC - new_N[:, None]).sum(1)
    is_right_NC = token_C[None] == target_N[:, None]
    right_N += jnp.where(is_right_NC, logits_NC, 0).sum(1)
    likeliest_N = jnp.where(new_N > highest_N, token_C[0] + logits_NC.argmax(
        1), likeliest_N)
    return new_N, sum_N, right_N, likeliest_N

  zero_N = jnp.zeros(hidden_ND.shape[:1], jnp.float32)
  # Lower than any logit, and finite: a shard of padding alone is no NaN.
  lowest_N = zero_N + jnp.finfo(jnp.float32).min
  highest_N, sum_N, right_N, likeliest_N = _blocks(
      block, (lowest_N, zero_N, zero_N, zero_N.astype(jnp.int32)), num_rows)
  all_highest_N = maxima(highest_N, _MODEL)
  sum_N = sums(sum_N * jnp.exp(highest_N - all_highest_N), _MODEL)
  # Of shards with equal maxima the highest token wins; it never matters.
  likeliest_N = maxima(
      jnp.where(highest_N == all_highest_N, likeliest_N, -1), _MODEL)
  return all_highest_N + jnp.log(sum_N), sums(right_N, _MODEL), likeliest_N


def _backward_part(hidden_ND, table_VD, bias_V, target_N, log_sum_N,
                   gradient_N, *, vocab_size, sums, maxima, index):
  del maxima
  num_rows, dtype = table_VD.shape[0], hidden_ND.dtype
  offset = index(_MODEL) * num_rows

  def block(carry, first, size):
    hidden_gradient, table_gradient, bias_gradient = carry
    logits_NC, table_CD, token_C = _block_logits(
        hidden_ND, table_VD, bias_V, first, size, offset, vocab_size)
    is_right_NC = token_C[None] == target_N[:, None]
    wide_NC = gradient_N[:, None] * (
        jnp.exp(logits_NC - log_sum_N[:, None]) - is_right_NC)
    logits_gradient = wide_NC.astype(dtype)
    hidden_gradient += jnp.einsum(
        'NC,CD->ND', logits_gradient, table_CD,
        preferred_element_type=jnp.float32)
    table_gradient = jax.lax.dynamic_update_slice_in_dim(
        table_gradient, jnp.einsum(
            'NC,ND->CD', logits_gradient, hidden_ND,
            preferred_element_type=jnp.float32), first, 0)
    bias_gradient = jax.lax.dynamic_update_slice_in_dim(
        bias_gradient, wide_NC.sum(0), first, 0)
    return hidden_gradient, table_gradient, bias_gradient

  hidden_gradient, table_gradient, bias_gradient = _blocks(
      block, (jnp.zeros(hidden_ND.shape, jnp.float32),
              jnp.zeros(table_VD.shape, jnp.float32),
              jnp.zeros(bias_V.shape, jnp.float32)), num_rows)
  return (sums(hidden_gradient, _MODEL).astype(dtype),
          sums(table_gradient, _DATA), sums(bias_gradient, _DATA))
