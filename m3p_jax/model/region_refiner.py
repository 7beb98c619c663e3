"""The optional region refiner: attention on attention over the regions.

Letters: B rows, R regions, D width, H heads, K head size.
Source: reference.md, section 3 ("Refiner"); Huang et al. 2019, "Attention on
Attention for Image Captioning". Off in the published recipe.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax.model import config as model_config
from m3p_jax.model import dropout
from m3p_jax.model import layers
from m3p_jax.model import transformer

# Seeds of one layer's dropout: attention weights, what the gate reads, the two
# parts.
NUM_SEEDS = 4


class RefinerAttention(nn.Module):
  """Self-attention whose result is gated by its own query."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BRD, mask_BR, *, weights_seed, gate_seed):
    c = self.config
    mixed_BRD = transformer.attend(
        self, hidden_BRD, transformer.Memory(hidden_BRD, mask_BR),
        dropout_seed=weights_seed)
    both = jnp.concatenate(
        [mixed_BRD.reshape(hidden_BRD.shape), hidden_BRD], axis=-1)
    both = dropout.drop(both, gate_seed, c.dropout)
    gated = layers.Einsum(
        'BRX,XY->BRY', (2 * c.width, 2 * c.width), ('embed', 'mlp'),
        fan_in=2 * c.width, name='gate')(both)
    return jax.nn.glu(gated)


class RegionRefiner(nn.Module):
  """Pre-norm layers of `RefinerAttention` and an MLP, then a LayerNorm."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BRD, mask_BR, seeds_NS2):
    """Returns refined regions [B, R, D].

    Args:
      hidden_BRD: embedded regions.
      mask_BR: False at padding.
      seeds_NS2: `NUM_SEEDS` of dropout for each layer; None = no dropout.
    """
    c = self.config
    for i in range(c.refiner_layers):
      weights_seed, gate_seed, attention_seed, mlp_seed = dropout.unstack(
          None if seeds_NS2 is None else seeds_NS2[i], NUM_SEEDS)
      normed_BRD = layers.LayerNorm(
          c.layer_norm_epsilon, name=f'attention_norm_{i}')(hidden_BRD)
      hidden_BRD = hidden_BRD + dropout.drop(
          RefinerAttention(c, name=f'attention_{i}')(
              normed_BRD, mask_BR, weights_seed=weights_seed,
              gate_seed=gate_seed), attention_seed, c.dropout)
      normed_BRD = layers.LayerNorm(
          c.layer_norm_epsilon, name=f'mlp_norm_{i}')(hidden_BRD)
      hidden_BRD = hidden_BRD + dropout.drop(
          transformer.Mlp(c, name=f'mlp_{i}')(normed_BRD), mlp_seed, c.dropout)
    return layers.LayerNorm(c.layer_norm_epsilon, name='norm')(hidden_BRD)
