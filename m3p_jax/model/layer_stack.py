"""The layers as functions of their parameters, and the last one where it is
read.

Most heads read few positions: the masked ones, or the first. The last layer
then computes those alone, and projects no keys and no values:
q·(W h) = (Wᵀ q)·h and Σ a (W h) = W (Σ a h).

Letters: N layers, B rows, T length (regions and text), P positions read of a
row, M = B·P, H heads, X = P·H, D width, K head size.
"""

from typing import Any

import jax
import jax.numpy as jnp

from m3p_jax.model import config as model_config
from m3p_jax.model import dropout
from m3p_jax.model import layers
from m3p_jax.model import prepared
from m3p_jax.model import transformer

# What `jax.checkpoint` keeps of a layer; None = its input alone.
CHECKPOINT_POLICIES = {
    'full': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def split_last(stacked: Any) -> tuple[Any, Any]:
  """Returns the parameters of all layers but the last, stacked, and the last's.

  Their gradients are concatenated; those of slices would be padded and added.
  """
  leaves, tree = jax.tree.flatten(stacked)
  body, last = zip(*(jax.lax.split(leaf, (len(leaf) - 1, 1))
                     for leaf in leaves), strict=True)
  return (jax.tree.unflatten(tree, body),
          jax.tree.unflatten(tree, [leaf[0] for leaf in last]))


def run(c: model_config.ModelConfig, stacked: Any, hidden_BTD: jax.Array,
        mask_BT: jax.Array, seeds_NS2: jax.Array | None = None) -> jax.Array:
  """Returns the states after whole layers, [B, T, D].

  Args:
    c: the model's geometry.
    stacked: the layers' parameters, or a list of prepared ones.
    hidden_BTD: what enters the first of them.
    mask_BT: False at padding.
    seeds_NS2: [N, `NUM_SEEDS`, 2] of dropout; None = no dropout.
  """

  def step(hidden_BTD, layer):
    params, seeds_S2 = layer
    return transformer.EncoderLayer(c, parent=None).apply(
        {'params': params}, hidden_BTD, mask_BT, seeds_S2)

  if isinstance(stacked, list):
    for params in stacked:
      attended_BTD = transformer.Attention(c, parent=None).apply(
          {'params': params['attention']}, hidden_BTD,
          transformer.Memory(hidden_BTD, mask_BT), dropout_seed=None)
      hidden_BTD = finish(c, params, hidden_BTD, attended_BTD, mask_BT)
    return hidden_BTD
  if c.remat in CHECKPOINT_POLICIES:
    step = jax.checkpoint(step, prevent_cse=False,
                          policy=CHECKPOINT_POLICIES[c.remat])
  return jax.lax.scan(
      step, hidden_BTD, (stacked, seeds_NS2), unroll=c.unroll)[0]


def finish(c: model_config.ModelConfig, params: Any, hidden_BTD: jax.Array,
           attended_BTD: jax.Array, mask_BT: jax.Array,
           seeds_S2: jax.Array | None = None) -> jax.Array:
  """Returns what an `EncoderLayer` makes of its attention's output.

  Args:
    c: the model's geometry.
    params: the layer's, prepared or not.
    hidden_BTD: what entered the layer.
    attended_BTD: the attention's output.
    mask_BT: False at padding.
    seeds_S2: as the layer's; None = no dropout.
  """
  _, attention_seed, mlp_seed, *_ = dropout.unstack(
      seeds_S2, transformer.NUM_SEEDS)

  def norm(name, x):
    return layers.LayerNorm(c.layer_norm_epsilon, parent=None).apply(
        {'params': params[name]}, x)

  hidden_BTD = norm('attention_norm', hidden_BTD + dropout.drop(
      attended_BTD, attention_seed, c.dropout))
  hidden_BTD = norm('mlp_norm', hidden_BTD + dropout.drop(
      prepared.mlp(c, params['mlp'], hidden_BTD), mlp_seed, c.dropout))
  return hidden_BTD * mask_BT[..., None].astype(hidden_BTD.dtype)


def merge_heads(c: model_config.ModelConfig, params: Any,
                mixed_BTHK: jax.Array) -> jax.Array:
  """Returns the output map of a layer's attention, [B, T, D]."""
  return transformer.merge_heads(c, parent=None).apply(
      {'params': params['attention']['out']}, mixed_BTHK)


def read_last(c: model_config.ModelConfig, params: Any, hidden_BTD: jax.Array,
              mask_BT: jax.Array, position_BP: jax.Array,
              seeds_S2: jax.Array | None = None) -> jax.Array:
  """Returns some positions after the last layer, [B, P, D].

  Args:
    c: the model's geometry.
    params: the last layer's, prepared or not.
    hidden_BTD: what enters it.
    mask_BT: False at padding.
    position_BP: int, the positions.
    seeds_S2: as the layer's; None = no dropout.
  """
  attention = params['attention']
  shape_BPHD = (*position_BP.shape, c.num_heads, c.width)
  read_BPD = jnp.take_along_axis(hidden_BTD, position_BP[..., None], axis=1)
  query_BPHK = transformer.projection(c, 'query', parent=None).apply(
      {'params': attention['query']}, read_BPD) * c.head_size ** -0.5
  # The keys' bias adds the same to every logit of a head. Axes are merged: with
  # more of them a CPU has no bfloat16 routine for some small shapes.
  query_MHD = layers.contract(
      'MHK,DHK->MHD', query_BPHK.reshape(-1, *query_BPHK.shape[2:]),
      attention['key']['kernel'])
  logits_BXT = layers.contract(
      'BXD,BTD->BXT', query_MHD.reshape(len(read_BPD), -1, c.width),
      hidden_BTD, jnp.float32)
  # Finite, so that a row of padding alone gives numbers, not NaN.
  logits_BXT = jnp.where(
      mask_BT[:, None], logits_BXT, jnp.finfo(jnp.float32).min)
  weights_seed, *_ = dropout.unstack(seeds_S2, transformer.NUM_SEEDS)
  weights_BXT = dropout.drop(
      jax.nn.softmax(logits_BXT).astype(hidden_BTD.dtype), weights_seed,
      c.attention_dropout)
  seen_BXD = layers.contract('BXT,BTD->BXD', weights_BXT, hidden_BTD)
  mixed_BPHK = layers.contract(
      'MHD,DHK->MHK', seen_BXD.reshape(-1, *shape_BPHD[2:]),
      attention['value']['kernel']).reshape(query_BPHK.shape)
  # The values' bias counts as often as there is weight; 1 without dropout.
  total_BPH1 = (1 if weights_seed is None else weights_BXT.astype(
      jnp.float32).sum(-1).reshape(*shape_BPHD[:3], 1))
  mixed_BPHK += (total_BPH1 * attention['value']['bias']).astype(
      mixed_BPHK.dtype)
  return finish(
      c, params, read_BPD, merge_heads(c, params, mixed_BPHK),
      jnp.take_along_axis(mask_BT, position_BP, axis=1), seeds_S2)
