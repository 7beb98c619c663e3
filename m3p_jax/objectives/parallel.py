"""Two texts that say the same, as one row, or as what a writer reads.

Letters: B rows, L text length (of both, where they are joined), S states.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib


def join(batch: batch_lib.Batch, *,
         use_picture: bool = True) -> batch_lib.Batch:
  """Returns rows in which the text stands behind the one that it translates.

  Its padding stays in the middle; each token has its own text's language.

  Args:
    batch: of the stream 'parallel'.
    use_picture: whether the rows keep their regions, where there are any.
  """
  extra = batch.extra

  def both(source, target):
    return jnp.concatenate([jnp.asarray(source), target], axis=1)

  return batch_lib.Batch(
      both(extra['source_ids_BL'], batch.token_ids_BL),
      both(extra['source_mask_BL'], batch.text_mask_BL),
      both(*(jnp.broadcast_to(language_B[:, None], ids_BL.shape)
             for language_B, ids_BL in (
                 (extra['source_language_B'], extra['source_ids_BL']),
                 (batch.language_B, batch.token_ids_BL)))),
      batch.regions if use_picture else None)


def memory(model, regions: batch_lib.Regions | None,
           extra: Mapping[str, Any], *, deterministic: bool | None = None,
           ) -> tuple[jax.Array, jax.Array]:
  """Returns what a writer reads: states [B, S, D] and their mask [B, S].

  Of the picture, of the text in another language, or of both in one row.

  Args:
    model: bound `M3P`.
    regions: of the pictures; None = they are not looked at.
    extra: of `Batch`; with a source text or without.
    deterministic: no dropout; None = dropout if there is a key for it.
  """
  if 'source_ids_BL' not in extra:
    return (model.encode_images(regions, deterministic=deterministic),
            regions.mask_BR)
  rows = batch_lib.Batch(extra['source_ids_BL'], extra['source_mask_BL'],
                         extra['source_language_B'], regions)
  encoded = model.encode(rows, deterministic=deterministic)
  if regions is None:
    return encoded.text_BLD, rows.text_mask_BL
  return (jnp.concatenate([encoded.regions_BRD, encoded.text_BLD], axis=1),
          jnp.concatenate([regions.mask_BR, rows.text_mask_BL], axis=1))
