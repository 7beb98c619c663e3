"""Fresh parameters of M3P.

Source: reference.md, section 2 (initial values).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p


def init_params(config: model_config.ModelConfig, key: jax.Array):
  """Returns fresh parameters, boxed with their logical axis names.

  Args:
    config: geometry.
    key: random key; equal keys give equal values on every mesh.
  """
  regions = batch_lib.Regions(
      image_id_B=jnp.zeros((1,), jnp.int32),
      features_BRF=jnp.zeros((1, 1, config.region_feature_dim)),
      boxes_BRG=jnp.zeros((1, 1, 5)),
      class_ids_BR=jnp.zeros((1, 1), jnp.int32),
      mask_BR=jnp.ones((1, 1), bool))
  batch = batch_lib.Batch(
      token_ids_BL=jnp.zeros((1, 1), jnp.int32),
      text_mask_BL=jnp.ones((1, 1), bool),
      language_B=jnp.zeros((1,), jnp.int32), regions=regions)
  # Float32 layers are a loop, which is traced once: no parameter depends on it.
  config = dataclasses.replace(config, dtype='float32')
  return m3p.M3P(config).init(key, batch)['params']


@functools.lru_cache(maxsize=4)
def abstract_params(config: model_config.ModelConfig) -> Any:
  """Returns the shapes of `init_params`, boxed, which are traced once."""
  return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
