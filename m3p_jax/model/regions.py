"""Regions into the Transformer and out of it: embedding, refiner, class head.

Letters: B rows, T positions, R regions, P predictions a row, D width, F region
feature, G=5 box, C region classes.
Source: reference.md, sections 2 and 3.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import transformer


def normalise(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
  """Returns x / max(‖x‖, epsilon) over the last axis, float32; zeros stay."""
  wide = x.astype(jnp.float32)
  # The gradient of a norm at zero is NaN, that of this is 0.
  square = jnp.square(wide).sum(-1, keepdims=True)
  return wide * jax.lax.rsqrt(jnp.maximum(square, epsilon ** 2))


def mean_pool(hidden_BTD: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """Returns the float32 mean [B, D] over the positions where the mask is."""
  weight_BT1 = mask_BT[..., None].astype(jnp.float32)
  total_BD = (hidden_BTD.astype(jnp.float32) * weight_BT1).sum(1)
  return total_BD / jnp.maximum(weight_BT1.sum(1), 1.0)


class RegionEmbedding(nn.Module):
  """LN(W_f · feature + W_l · box), both L2-normalised here and only here.

  Not at all where `config.normalise_regions` is False.
  """
  config: model_config.ModelConfig
  options: model_config.Options

  @nn.compact
  def __call__(self, regions: batch_lib.Regions, *,
               deterministic: bool) -> jax.Array:
    c, dtype = self.config, self.options.dtype
    features_BRF, boxes_BRG = regions.features_BRF, regions.boxes_BRG
    if c.normalise_regions:
      features_BRF, boxes_BRG = map(normalise, (features_BRF, boxes_BRG))
    # Each picture's own choice, and one for all its regions: numbers that few
    # pictures share are not what it is learned by.
    features_BRF = nn.Dropout(self.options.region_dropout, broadcast_dims=(1,))(
        features_BRF, deterministic=deterministic)
    features_BRD = transformer.Linear(
        'BRF,FD->BRD', (c.region_feature_dim, c.width),
        ('region_feature', 'embed'), name='feature')(
            features_BRF.astype(dtype))
    boxes_BRD = transformer.Linear(
        'BRG,GD->BRD', (5, c.width), ('box', 'embed'), name='box')(
            boxes_BRG.astype(dtype))
    return transformer.layer_norm(c.layer_norm_epsilon, dtype, name='norm')(
        features_BRD + boxes_BRD)


class RegionRefiner(nn.Module):
  """Pre-norm layers of gated attention and an MLP, then a LayerNorm.

  Source: Huang et al. 2019, "Attention on Attention for Image Captioning".
  Off in the published recipe.
  """
  config: model_config.ModelConfig
  options: model_config.Options

  @nn.compact
  def __call__(self, hidden_BRD: jax.Array, mask_BR: jax.Array, *,
               deterministic: bool) -> jax.Array:
    """Returns refined regions [B, R, D]."""
    c = self.config
    drop = nn.Dropout(self.options.dropout, deterministic=deterministic)

    def norm(name, hidden_BRD):
      return transformer.layer_norm(
          c.layer_norm_epsilon, hidden_BRD.dtype, name=name)(hidden_BRD)

    for i in range(c.refiner_layers):
      normed_BRD = norm(f'attention_norm_{i}', hidden_BRD)
      hidden_BRD = hidden_BRD + drop(transformer.Attention(
          c, self.options, is_gated=True, name=f'attention_{i}')(
              normed_BRD, normed_BRD, mask_BR[:, None],
              deterministic=deterministic))
      hidden_BRD = hidden_BRD + drop(transformer.Mlp(c, name=f'mlp_{i}')(
          norm(f'mlp_norm_{i}', hidden_BRD)))
    return norm('norm', hidden_BRD)


class RegionClassHead(nn.Module):
  """Logits of a region's class: proj(LN(gelu(dense)))."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BPD: jax.Array) -> jax.Array:
    c = self.config
    hidden_BPD = transformer.Linear(
        'BPD,DX->BPX', (c.width, c.width), ('embed', 'mlp'), name='dense')(
            hidden_BPD)
    hidden_BPD = transformer.layer_norm(
        c.layer_norm_epsilon, hidden_BPD.dtype, name='norm')(
            jax.nn.gelu(hidden_BPD, approximate=False))
    return transformer.Linear(
        'BPD,DC->BPC', (c.width, c.num_region_classes),
        ('embed', 'region_classes'), name='out')(hidden_BPD)
