"""From rows to what the first layer reads.

Letters: B rows, L text length, R regions, T=R+L, D width.
Source: reference.md, sections 2 and 3.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.model import config as model_config
from m3p_jax.model import dropout
from m3p_jax.model import layers
from m3p_jax.model import region_refiner
from m3p_jax.model import regions as regions_lib
from m3p_jax.model import transformer


class Inputs(nn.Module):
  """The part of M3P below its layers."""
  config: model_config.ModelConfig

  def _setup_inputs(self):
    c = self.config
    width = c.width
    self.tokens = layers.Table(c.padded_vocab_size, width, 'vocab')
    self.positions = layers.Table(c.max_positions, width, 'positions')
    if c.num_languages > 1:
      self.languages = layers.Table(c.num_languages, width, 'languages')
    self.embedding_norm = layers.LayerNorm(c.layer_norm_epsilon)
    self.region_embedding = regions_lib.RegionEmbedding(c)
    if c.refiner_layers:
      self.refiner = region_refiner.RegionRefiner(c)

  def place_regions(self, regions: batch_lib.Regions,
                    position_BR: jax.Array) -> jax.Array:
    """Returns what the joint pass's first layer reads of pictures [B, R, D].

    Args:
      regions: rows; in any order and number, for attention has none.
      position_BR: int, where each region stands in its picture.
    """
    return self._place(self._region_hidden(regions, True), regions.mask_BR,
                       position_BR, True)

  def place_text(self, token_ids_BL: jax.Array, text_mask_BL: jax.Array, *,
                 start: int) -> jax.Array:
    """Returns what the joint pass's first layer reads of captions [B, L, D].

    Args:
      token_ids_BL: the captions.
      text_mask_BL: False at padding.
      start: position of the first token: how many regions stand before it.
    """
    position_1L = start + jnp.arange(token_ids_BL.shape[1])[None]
    return self._place(self._word_vectors(token_ids_BL), text_mask_BL,
                       position_1L, True)

  def _resolve(self, deterministic: bool | None) -> bool:
    if deterministic is None:
      return not self.has_rng('dropout')
    return deterministic

  def _seeds(self, deterministic: bool, *shape: int) -> jax.Array | None:
    """Returns seeds [*shape, 2] of dropout; None = nothing is dropped."""
    c = self.config
    if deterministic or not (c.dropout or c.attention_dropout):
      return None
    return dropout.seeds(self.make_rng('dropout'), *shape)

  def _drop(self, hidden_BTD, deterministic):
    return dropout.drop(
        hidden_BTD, self._seeds(deterministic), self.config.dropout)

  def _word_vectors(self, token_ids_BL):
    return self.tokens(token_ids_BL).astype(self.config.activation_dtype)

  def _add_language(self, hidden_BTD, language_B):
    if self.config.num_languages == 1 or language_B is None:
      return hidden_BTD
    return hidden_BTD + self.languages(language_B)[:, None].astype(
        hidden_BTD.dtype)

  def _region_hidden(self, regions, deterministic):
    hidden_BRD = self.region_embedding(regions)
    hidden_BRD = self._drop(hidden_BRD, deterministic)
    if self.config.refiner_layers:
      hidden_BRD = self.refiner(hidden_BRD, regions.mask_BR, self._seeds(
          deterministic, self.config.refiner_layers,
          region_refiner.NUM_SEEDS))
    return hidden_BRD

  def _join(self, batch, deterministic):
    """Returns what the first layer reads of pictures with texts, its mask."""
    hidden_BTD = jnp.concatenate(
        [self._region_hidden(batch.regions, deterministic),
         self._word_vectors(batch.token_ids_BL)], axis=1)
    mask_BT = jnp.concatenate(
        [batch.regions.mask_BR, batch.text_mask_BL], axis=1)
    return self._place_in_order(hidden_BTD, mask_BT, deterministic), mask_BT

  def _place_words(self, token_ids_BL, text_mask_BL, language_B,
                   deterministic):
    """Returns what the first layer reads of texts alone, its mask."""
    hidden_BLD = self._add_language(
        self._word_vectors(token_ids_BL), language_B)
    return (self._place_in_order(hidden_BLD, text_mask_BL, deterministic),
            text_mask_BL)

  def _place_in_order(self, hidden_BTD, mask_BT, deterministic):
    """Returns what enters the first layer, position by position."""
    return self._place(hidden_BTD, mask_BT,
                       jnp.arange(hidden_BTD.shape[1])[None], deterministic)

  def _place(self, hidden_BTD, mask_BT, position_BT, deterministic):
    """Returns what enters the first layer; `position_BT` may be one row."""
    hidden_BTD = hidden_BTD + self.positions(position_BT).astype(
        hidden_BTD.dtype)
    hidden_BTD = self.embedding_norm(hidden_BTD)
    hidden_BTD = self._drop(hidden_BTD, deterministic)
    hidden_BTD = hidden_BTD * mask_BT[..., None].astype(hidden_BTD.dtype)
    return sharding.constrain(hidden_BTD, *transformer.HIDDEN_AXES)
