"""Regions into the Transformer and out of it: embedding and class head.

Letters: B rows, R regions, P predictions a row, D width, F region feature,
G=5 box, C region classes.
Source: reference.md, sections 2 and 3.
"""

from flax import linen as nn
import jax

from m3p_jax import batch as batch_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import layers
from m3p_jax.model import pooling


class RegionEmbedding(nn.Module):
  """LN(W_f · feature + W_l · box), both L2-normalised here and only here.

  Not at all where `config.normalise_regions` is False.
  """
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, regions: batch_lib.Regions) -> jax.Array:
    c = self.config
    dtype = c.activation_dtype
    features_BRF, boxes_BRG = regions.features_BRF, regions.boxes_BRG
    if c.normalise_regions:
      features_BRF, boxes_BRG = map(pooling.normalise,
                                    (features_BRF, boxes_BRG))
    features_BRD = layers.Einsum(
        'BRF,FD->BRD', (c.region_feature_dim, c.width),
        ('region_feature', 'embed'), fan_in=c.region_feature_dim,
        name='feature')(features_BRF.astype(dtype))
    boxes_BRD = layers.Einsum(
        'BRG,GD->BRD', (5, c.width), ('box', 'embed'), fan_in=5,
        name='box')(boxes_BRG.astype(dtype))
    return layers.LayerNorm(c.layer_norm_epsilon, name='norm')(
        features_BRD + boxes_BRD)


class RegionClassHead(nn.Module):
  """Logits of a region's class: proj(LN(gelu(dense)))."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BPD: jax.Array) -> jax.Array:
    c = self.config
    hidden_BPD = layers.Einsum(
        'BPD,DX->BPX', (c.width, c.width), ('embed', 'mlp'), fan_in=c.width,
        name='dense')(hidden_BPD)
    hidden_BPD = layers.LayerNorm(c.layer_norm_epsilon, name='norm')(
        jax.nn.gelu(hidden_BPD, approximate=False))
    return layers.Einsum(
        'BPD,DC->BPC', (c.width, c.num_region_classes),
        ('embed', 'region_classes'), fan_in=c.width, name='out')(hidden_BPD)
