"""A tiny model and real-shaped batches shared by the tests."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

TINY = model_config.ModelConfig(
    vocab_size=250_002, width=16, num_heads=2, mlp_width=32, num_layers=2,
    max_positions=136, region_feature_dim=12, num_region_classes=7,
    num_languages=3, embedding_dim=8)
OPTIONS = model_config.Options(dropout=0.1, attention_dropout=0.1)

# For what compiles often: the word table is most of a step.
SHORT = dataclasses.replace(TINY, vocab_size=500)


def short_words(rows: batch_lib.Batch) -> batch_lib.Batch:
  """Returns the rows with tokens that `SHORT` has."""
  ids_BL = rows.token_ids_BL
  return rows._replace(token_ids_BL=jnp.where(
      ids_BL < 1000, ids_BL, 4 + ids_BL % 490))


@functools.cache
def tiny():
  """Returns (module, params) of the tiny model; made once a process."""
  params = jax.jit(lambda key: nn.unbox(m3p.init_params(TINY, key)))(
      jax.random.key(0))
  return m3p.M3P(TINY, OPTIONS), params


def call(fn, *args, params=None, dropout_key=None):
  """Returns fn(bound tiny model, *args)."""
  module, default = tiny()
  rngs = {} if dropout_key is None else {'dropout': dropout_key}
  return nn.apply(fn, module)(
      {'params': default if params is None else params}, *args, rngs=rngs)


def batch(rows: int = 4, length: int = 9, num_regions: int = 5,
          seed: int = 0) -> batch_lib.Batch:
  """Returns rows of words and regions; the last two text columns are padding.

  Boxes do not overlap, so masking one region hides no other.
  """
  rng = np.random.default_rng(seed)
  ids_BL = rng.integers(1000, 200_000, (rows, length)).astype(np.int32)
  ids_BL[:, 0] = 0
  ids_BL[:, -3] = 2
  ids_BL[:, -2:] = 1
  left_R = np.arange(num_regions) / num_regions
  box_RG = np.stack([left_R, 0 * left_R, left_R + 1 / num_regions,
                     1 + 0 * left_R, 0 * left_R + 1 / num_regions], axis=1)
  regions = batch_lib.Regions(
      image_id_B=jnp.arange(rows, dtype=jnp.int32),
      features_BRF=jnp.asarray(rng.normal(size=(
          rows, num_regions, TINY.region_feature_dim)), jnp.float32),
      boxes_BRG=jnp.asarray(np.broadcast_to(
          box_RG, (rows, num_regions, 5)), jnp.float32),
      class_ids_BR=jnp.asarray(rng.integers(
          1, TINY.num_region_classes, (rows, num_regions)), jnp.int32),
      mask_BR=jnp.ones((rows, num_regions), bool))
  return batch_lib.Batch(
      token_ids_BL=jnp.asarray(ids_BL), text_mask_BL=jnp.asarray(ids_BL != 1),
      language_B=jnp.zeros(rows, jnp.int32), regions=regions)
