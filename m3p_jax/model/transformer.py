"""Attention, feed-forward part, and the layer made of them.

Letters: B rows, T length (regions and text), S length of what is attended to,
D width, H heads, K head size, M MLP width.
"""

import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import sharding
from m3p_jax.model import config as model_config
from m3p_jax.model import dropout
from m3p_jax.model import layers
from m3p_jax.model import lean

# Logical axes of hidden states [B, T, D].
HIDDEN_AXES = ('batch', 'length', 'activation_embed')

# Seeds of one layer's dropout: attention weights, attention, feed-forward
# part; attention to a memory, its weights first.
NUM_SEEDS = 5

# Collection of the attention weights; no parameters, so `init` leaves it out.
ATTENTION = 'intermediates'


class Memory(NamedTuple):
  """Encoded rows that a decoder reads.

  Attributes:
    hidden_BSD: last hidden states.
    mask_BS: False at padding.
  """
  hidden_BSD: jax.Array
  mask_BS: jax.Array


def projection(c: model_config.ModelConfig, name: str,
               **module: Any) -> layers.Einsum:
  """Returns the map 'query', 'key' or 'value' of an attention, all heads.

  Args:
    c: the model's geometry.
    name: which.
    **module: keywords of every `nn.Module`.
  """
  return layers.Einsum(
      'BTD,DHK->BTHK', (c.width, c.num_heads, c.head_size),
      ('embed', 'heads', 'head_size'), fan_in=c.width, bias_axes=2, name=name,
      **module)


def merge_heads(c: model_config.ModelConfig, **module: Any) -> layers.Einsum:
  """Returns the output map of an attention; arguments as `projection`'s."""
  return layers.Einsum(
      'BTHK,HKD->BTD', (c.num_heads, c.head_size, c.width),
      ('heads', 'head_size', 'embed'), fan_in=c.width, name='out', **module)


def attend(module: nn.Module, hidden_BTD: jax.Array, memory: Memory, *,
           dropout_seed: jax.Array | None, causal: bool = False) -> jax.Array:
  """Returns the heads' weighted values, [B, T, H, K].

  Args:
    module: a compact one with a `config`, whose layers these become; it sows
      the weights, float32 [B, H, T, S], into the collection `ATTENTION`.
    hidden_BTD: where the queries come from.
    memory: where keys and values come from; itself for self-attention.
    dropout_seed: [2], of the attention weights' dropout; None = no dropout.
    causal: position t attends to positions up to t.
  """
  c = module.config

  def project(name, source_BTD):
    return sharding.constrain(
        projection(c, name)(source_BTD),
        'batch', 'length', 'heads', 'head_size')

  # Queries are scaled before the product, as the release does.
  query_BTHK = project('query', hidden_BTD) * c.head_size ** -0.5
  key_BSHK = project('key', memory.hidden_BSD)
  value_BSHK = project('value', memory.hidden_BSD)
  mask_BHTS = memory.mask_BS[:, None, None, :]
  if causal:
    mask_BHTS = mask_BHTS & jnp.tril(jnp.ones(
        (hidden_BTD.shape[1], mask_BHTS.shape[-1]), bool))[None, None]
  # Autodiff's memory is the most that a step on a CPU holds beside its state.
  is_lean = c.remat == 'lean' or c.resolved_platform == 'cpu'
  if is_lean and not module.is_mutable_collection(ATTENTION):
    return lean.attention(query_BTHK, key_BSHK, value_BSHK, mask_BHTS,
                          dropout_seed, c.attention_dropout)
  logits_BHTS = jnp.einsum(
      'BTHK,BSHK->BHTS', query_BTHK, key_BSHK,
      preferred_element_type=jnp.float32)
  # Finite, so that a row of padding alone gives numbers, not NaN.
  logits_BHTS = jnp.where(
      mask_BHTS, logits_BHTS, jnp.finfo(jnp.float32).min)
  weights_BHTS = jax.nn.softmax(logits_BHTS)
  # Kept only where the caller makes this collection mutable.
  module.sow(ATTENTION, 'weights', weights_BHTS)
  weights_BHTS = dropout.drop(
      weights_BHTS.astype(hidden_BTD.dtype), dropout_seed, c.attention_dropout)
  return jnp.einsum(
      'BHTS,BSHK->BTHK', weights_BHTS, value_BSHK,
      preferred_element_type=jnp.float32).astype(hidden_BTD.dtype)


class Attention(nn.Module):
  """Multi-head attention with an output map."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BTD: jax.Array, memory: Memory, *,
               dropout_seed: jax.Array | None,
               causal: bool = False) -> jax.Array:
    c = self.config
    mixed_BTHK = attend(self, hidden_BTD, memory, dropout_seed=dropout_seed,
                        causal=causal)
    return merge_heads(c)(mixed_BTHK)


class Mlp(nn.Module):
  """The feed-forward part: Linear, erf GELU, Linear."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BTD: jax.Array) -> jax.Array:
    c = self.config
    inner_BTM = layers.Einsum(
        'BTD,DM->BTM', (c.width, c.mlp_width), ('embed', 'mlp'),
        fan_in=c.width, name='inner')(hidden_BTD)
    inner_BTM = sharding.constrain(inner_BTM, 'batch', 'length', 'mlp')
    return layers.Einsum(
        'BTM,MD->BTD', (c.mlp_width, c.width), ('mlp', 'embed'),
        fan_in=c.mlp_width, contract=lean.gelu_map, name='outer')(inner_BTM)


class EncoderLayer(nn.Module):
  """One post-LayerNorm Transformer layer.

  With a memory it is a decoder's layer: causal, and attending to the memory
  before its feed-forward part.
  Source: reference.md, section 3 ("Joint", "Decoder use").
  """
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BTD: jax.Array, mask_BT: jax.Array,
               seeds_S2: jax.Array | None, memory: Memory | None = None,
               ) -> tuple[jax.Array, None]:
    """Returns (hidden states, None), as `nn.scan` wants them.

    Args:
      hidden_BTD: hidden states.
      mask_BT: False at padding.
      seeds_S2: `NUM_SEEDS` of dropout; None = no dropout.
      memory: what the decoder reads.
    """
    c = self.config
    norm = functools.partial(
        layers.LayerNorm, c.layer_norm_epsilon)
    (weights_seed, attention_seed, mlp_seed, memory_weights_seed,
     memory_seed) = dropout.unstack(seeds_S2, NUM_SEEDS)
    attended_BTD = Attention(c, name='attention')(
        hidden_BTD, Memory(hidden_BTD, mask_BT), dropout_seed=weights_seed,
        causal=memory is not None)
    hidden_BTD = norm(name='attention_norm')(
        hidden_BTD + dropout.drop(attended_BTD, attention_seed, c.dropout))
    if memory is not None:
      attended_BTD = Attention(c, name='cross_attention')(
          hidden_BTD, memory, dropout_seed=memory_weights_seed)
      hidden_BTD = norm(name='cross_attention_norm')(
          hidden_BTD + dropout.drop(attended_BTD, memory_seed, c.dropout))
    hidden_BTD = norm(name='mlp_norm')(hidden_BTD + dropout.drop(
        Mlp(c, name='mlp')(hidden_BTD), mlp_seed, c.dropout))
    hidden_BTD = hidden_BTD * mask_BT[..., None].astype(hidden_BTD.dtype)
    return sharding.constrain(hidden_BTD, *HIDDEN_AXES), None
