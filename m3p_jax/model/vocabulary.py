"""The tokens' head: logits over the word table, and their loss.

The loss scores a block of the table's rows after the other, and each device
its part of the table: of a block it keeps a few numbers a prediction, and the
backward pass makes the logits again. An array of all logits would be the
largest of a step by far: 4,096 predictions of 250,112 float32 are 4 GB.
Where steps are many and a vocabulary is large, a sample of it can stand for all
(`draw`): XLM-R's 250,002 tokens cost a small model more than all its layers.
Letters: B rows, P predictions a row, N predictions, D width, V rows of the
word table, W of them that are scored, K blocks, C rows of a block.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from m3p_jax import sharding
from m3p_jax.model import transformer

# 115 blocks hold XLM-R's table and 128 rows more. A block's float32 logits of
# a thousand predictions take 9 MB: they stay in a TPU's on-chip memory.
BLOCK_ROWS = 2_176
# Words that are scored come in such groups, for whatever shares them.
_GROUP = 128
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


class Sample(NamedTuple):
  """Words that stand for the whole vocabulary.

  Attributes:
    token_W: ids, rising; from `vocab_size` on they are padding.
    log_weight_W: float32, of how many words of its kind each stands for.
  """
  token_W: jax.Array
  log_weight_W: jax.Array


def draw(key: jax.Array, target_BP: jax.Array, count: int, *,
         vocab_size: int) -> Sample:
  """Returns the targets, and words drawn to stand for all others.

  Low ids, which XLM-R's frequent pieces have, are drawn most: id v as often as
  log((v + 2) / (v + 1)), and weighs one over its chance to be among `count`.
  Source: Jean et al. 2015, section 3; the distribution is that of TensorFlow's
  log-uniform candidate sampler.
  """
  log_size = math.log(vocab_size + 1)
  drawn = jnp.exp(log_size * jax.random.uniform(key, (count,))).astype(
      jnp.int32) - 1
  size = -(-(count + target_BP.size) // _GROUP) * _GROUP
  token_W = jnp.unique(
      jnp.concatenate([target_BP.ravel(), jnp.clip(drawn, 0, vocab_size - 1)]),
      size=size, fill_value=vocab_size)
  share_W = jnp.log1p(1 / (token_W + 1.0)) / log_size
  chance_W = -jnp.expm1(count * jnp.log1p(-share_W))
  is_target_V = jnp.zeros(vocab_size, bool).at[target_BP].set(True)
  return Sample(token_W, jnp.where(
      is_target_V[jnp.minimum(token_W, vocab_size - 1)], 0.0,
      -jnp.log(chance_W)))


def sampled_nats(hidden_BPD: jax.Array, table_NVD: jax.Array,
                 bias_V: jax.Array, target_BP: jax.Array, sample: Sample, *,
                 vocab_size: int) -> tuple[jax.Array, jax.Array]:
  """Returns `nats` of targets as among all words, by the sample alone."""
  token_W = sample.token_W
  rows_W = jnp.minimum(token_W, vocab_size - 1)
  nats_BP, index_BP = nats(
      hidden_BPD, jnp.take(table_NVD, rows_W, axis=1),
      jnp.where(token_W < vocab_size, bias_V[rows_W] + sample.log_weight_W,
                _LOWEST),
      jnp.searchsorted(token_W, target_BP).astype(target_BP.dtype),
      vocab_size=len(token_W))
  return nats_BP, token_W[index_BP]


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
    # Here, not in the loop: their gradients are then summed once.
    bias_V = jax.lax.pcast(bias_V, _ROWS, to='varying')
    hidden_ND = jax.lax.pcast(hidden_ND, _MODEL, to='varying')
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
    logits_NC = bias_C + transformer.product('ND,CD->NC', hidden_ND, table_CD)
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
