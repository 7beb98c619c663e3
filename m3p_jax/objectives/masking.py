"""Which tokens and regions are hidden, as a pure function of batch and key.

Letters: B rows, L text length, R regions, P predictions a row, G=5 box.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib

# XLM-R's ids. Source: reference.md, section 4.
FIRST_WORD_ID = 4
MASK_ID = 250_001
VOCAB_SIZE = 250_002


class Masked(NamedTuple):
  """A corrupted batch and what to predict.

  Attributes:
    batch: with the chosen tokens or regions hidden.
    positions_BP: int32, chosen tokens or regions of each row.
    weights_BP: float32, 1 where the position counts, 0 where the row has
      fewer candidates than P.
  """
  batch: batch_lib.Batch
  positions_BP: jax.Array
  weights_BP: jax.Array


def choose_positions(key: jax.Array, allowed_BN: jax.Array, *,
                     rate: float) -> tuple[jax.Array, jax.Array]:
  """Returns positions [B, P] drawn without replacement, and their weights.

  A row with n allowed positions has max(1, round(rate · n)) of them chosen;
  P is the number for a full row, so shapes are static.
  """
  num_positions = allowed_BN.shape[1]
  limit = max(1, round(rate * num_positions))
  scores_BN = jnp.where(
      allowed_BN, jax.random.uniform(key, allowed_BN.shape), -1.0)
  top_BP, positions_BP = jax.lax.top_k(scores_BN, limit)
  count_B = allowed_BN.sum(1)
  wanted_B = jnp.maximum(1, jnp.round(rate * count_B)).astype(jnp.int32)
  chosen_BP = (jnp.arange(limit)[None] < wanted_B[:, None]) & (top_BP >= 0)
  return positions_BP, chosen_BP.astype(jnp.float32)


def is_word(token_ids_BL: jax.Array) -> jax.Array:
  """Returns which tokens may be masked: all but the special ones."""
  return (token_ids_BL >= FIRST_WORD_ID) & (token_ids_BL != MASK_ID)


def mask_tokens(batch: batch_lib.Batch, key: jax.Array, *,
                rate: float = 0.15) -> Masked:
  """Returns the batch with tokens hidden: 80 % masked, 10 % random, 10 % kept.

  `rate` is the share of the words' tokens that is predicted (paper: 15 %).
  """
  position_key, kind_key, random_key = jax.random.split(key, 3)
  allowed_BL = is_word(batch.token_ids_BL) & batch.text_mask_BL
  positions_BP, weights_BP = choose_positions(
      position_key, allowed_BL, rate=rate)
  original_BP = jnp.take_along_axis(batch.token_ids_BL, positions_BP, axis=1)
  kind_BP = jax.random.uniform(kind_key, positions_BP.shape)
  random_BP = jax.random.randint(
      random_key, positions_BP.shape, FIRST_WORD_ID, MASK_ID)
  shown_BP = jnp.where(
      kind_BP < 0.8, MASK_ID, jnp.where(kind_BP < 0.9, random_BP, original_BP))
  shown_BP = jnp.where(weights_BP > 0, shown_BP, original_BP)
  rows_B1 = jnp.arange(positions_BP.shape[0])[:, None]
  token_ids_BL = batch.token_ids_BL.at[rows_B1, positions_BP].set(shown_BP)
  return Masked(
      batch._replace(token_ids_BL=token_ids_BL), positions_BP, weights_BP)


def _holds(boxes_BRG: jax.Array, chosen_BR: jax.Array,
           max_overlap: float) -> jax.Array:
  """Returns [B, R]: the region covers more than that share of a chosen one."""
  left, top, right, bottom = jnp.moveaxis(boxes_BRG[..., :4], -1, 0)

  def overlap(low_BR, high_BR):
    return jnp.maximum(
        0.0, jnp.minimum(high_BR[:, :, None], high_BR[:, None])
        - jnp.maximum(low_BR[:, :, None], low_BR[:, None]))

  shared_BRR = overlap(left, right) * overlap(top, bottom)
  area_B1R = ((right - left) * (bottom - top))[:, None]
  covers_BRR = (shared_BRR > max_overlap * area_B1R) & chosen_BR[:, None]
  return covers_BRR.any(2)


def mask_regions(batch: batch_lib.Batch, key: jax.Array, *,
                 rate: float = 0.15, max_overlap: float = 0.5) -> Masked:
  """Returns the batch with regions hidden: 90 % zeroed, 10 % kept.

  A zeroed region's feature is zero; its box stays. Regions that cover more
  than `max_overlap` of a zeroed one are zeroed with it, unpredicted, for the
  target can be read from them: the whole picture holds every cell of a grid.
  At 1 none are, as in the release. Regions of class 0 are never chosen. `rate`
  is the share of the regions that is predicted (paper: 15 %).
  """
  position_key, kind_key = jax.random.split(key)
  regions = batch.regions
  allowed_BR = (regions.class_ids_BR > 0) & regions.mask_BR
  positions_BP, weights_BP = choose_positions(
      position_key, allowed_BR, rate=rate)
  zeroed_BP = (jax.random.uniform(kind_key, positions_BP.shape) < 0.9) & (
      weights_BP > 0)
  rows_B1 = jnp.arange(positions_BP.shape[0])[:, None]
  zeroed_BR = jnp.zeros(allowed_BR.shape, bool).at[
      rows_B1, positions_BP].max(zeroed_BP)
  hidden_BR = zeroed_BR
  if max_overlap < 1:
    hidden_BR |= _holds(regions.boxes_BRG, zeroed_BR, max_overlap)
  features_BRF = jnp.where(hidden_BR[..., None], 0, regions.features_BRF)
  return Masked(
      batch._replace(regions=regions._replace(features_BRF=features_BRF)),
      positions_BP, weights_BP)


def gather(hidden_BTD: jax.Array, positions_BP: jax.Array) -> jax.Array:
  """Returns hidden_BTD at the positions: [B, P, D]."""
  return jnp.take_along_axis(hidden_BTD, positions_BP[..., None], axis=1)
