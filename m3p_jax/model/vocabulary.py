"""The masked tokens' head: logits over the word table, and their loss.

The loss scores a block of the table's rows after the other, and each device
its part of the table: of a block it keeps a few numbers a prediction, and the
backward pass makes the logits again. An array of all logits would be the
largest of a step by far: 4,096 predictions of 250,112 float32 are 4 GB.
Letters: B rows, P predictions a row, N predictions, D width, V rows of the
word table, K blocks, C rows of a block.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from m3p_jax import sharding

# 115 blocks hold XLM-R's table and 128 rows more. A block's float32 logits of
# a thousand predictions take 9 MB: they stay in a TPU's on-chip memory.
BLOCK_ROWS = 2_176
# What padding scores: finite, so that a block of padding alone gives numbers.
_LOWEST = -1e30
_ROWS, (_MODEL,) = sharding.RULES['batch'], sharding.RULES['vocab']


def logits(hidden_BPD: jax.Array, table_VD: jax.Array, bias_V: jax.Array, *,
           vocab_size: int) -> jax.Array:
  """Returns float32 [B, P, V]; rows from `vocab_size` on are -inf."""
  logits_BPV = bias_V + jnp.einsum(
      'BPD,VD->BPV', hidden_BPD, table_VD.astype(hidden_BPD.dtype),
      preferred_element_type=jnp.float32)
  is_word_V = jnp.arange(len(bias_V)) < vocab_size
  return sharding.constrain(
      jnp.where(is_word_V, logits_BPV, -jnp.inf), 'batch', None, 'vocab')


def nats(hidden_BPD: jax.Array, table_NVD: jax.Array, bias_V: jax.Array,
         target_BP: jax.Array, *,
         vocab_size: int) -> tuple[jax.Array, jax.Array]:
  """Returns ([B, P] float32 nats of the targets, [B, P] likeliest token).

  Args:
    hidden_BPD: activations; under a mesh, B divides by `data` x `fsdp`.
    table_NVD: `shares.copies` of the word table, in the activations' dtype.
    bias_V: float32.
    target_BP: int32 tokens.
    vocab_size: rows of the table from here on are padding.
  """
  is_split = not jax.sharding.get_abstract_mesh().empty
  part = functools.partial(
      _nats_of_part, vocab_size=vocab_size, is_split=is_split)
  if is_split:
    part = jax.shard_map(
        part, in_specs=(P(_ROWS), P(_ROWS, _MODEL), P(_MODEL), P(_ROWS)),
        out_specs=(P(_ROWS), P(_ROWS)))
  nats_N, likeliest_N = part(
      hidden_BPD.reshape(-1, hidden_BPD.shape[-1]), table_NVD, bias_V,
      target_BP.ravel())
  return (nats_N.reshape(target_BP.shape),
          likeliest_N.reshape(target_BP.shape))


def _nats_of_part(hidden_ND, table_1VD, bias_V, target_N, *, vocab_size,
                  is_split):
  """Returns (nats, likeliest token) [N] on a device with a part of the table.

  Args: as `nats`, and
    is_split: whether this is one device's part, of a mesh.
  """
  table_VD = table_1VD[0]
  if is_split:
    # Here, not in the loop: its gradient is then summed once.
    bias_V = jax.lax.pcast(bias_V, _ROWS, to='varying')
  num_rows = len(bias_V)
  first = jax.lax.axis_index(_MODEL) * num_rows if is_split else 0
  size = min(BLOCK_ROWS, num_rows)
  padding = -num_rows % size
  token_V = jnp.arange(num_rows + padding)
  is_word_V = (token_V < num_rows) & (first + token_V < vocab_size)
  bias_V = jnp.where(is_word_V, jnp.pad(bias_V, (0, padding)), _LOWEST)
  table_VD = jnp.pad(table_VD, ((0, padding), (0, 0)))

  # Its logits are made again for the backward pass instead of being kept.
  @jax.checkpoint
  def read_block(block):
    table_CD, bias_C, token_C = block
    logits_NC = bias_C + jnp.einsum(
        'ND,CD->NC', hidden_ND, table_CD, preferred_element_type=jnp.float32)
    is_right_NC = first + token_C == target_N[:, None]
    return (jax.nn.logsumexp(logits_NC, axis=1),
            jnp.where(is_right_NC, logits_NC, 0).sum(1),
            logits_NC.max(1), first + token_C[logits_NC.argmax(1)])

  blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]),
                        (table_VD, bias_V, token_V))
  log_sum_KN, right_KN, highest_KN, token_KN = jax.lax.map(read_block, blocks)
  log_sum_N, right_N = jax.nn.logsumexp(log_sum_KN, axis=0), right_KN.sum(0)
  highest_N = jax.lax.stop_gradient(highest_KN.max(0))
  likeliest_N = jnp.take_along_axis(
      token_KN, highest_KN.argmax(0)[None], axis=0)[0]
  if is_split:
    highest_of_all_N = jax.lax.pmax(highest_N, _MODEL)
    log_sum_N = highest_of_all_N + jnp.log(jax.lax.psum(
        jnp.exp(log_sum_N - highest_of_all_N), _MODEL))
    right_N = jax.lax.psum(right_N, _MODEL)
    # Of parts with equal maxima the highest token wins.
    likeliest_N = jax.lax.pmax(jnp.where(
        highest_N == highest_of_all_N, likeliest_N, -1), _MODEL)
  return log_sum_N - right_N, likeliest_N
