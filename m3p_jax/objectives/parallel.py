"""Two texts that say the same, as one row, or as what a writer reads.

Letters: B rows, L text length (of both, where they are joined), S states.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib

_EMPTY = (0, 2)  # `<s> </s>`


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
           extra: Mapping[str, Any], language_B: jax.Array | None, *,
           deterministic: bool | None = None,
           ) -> tuple[jax.Array, jax.Array]:
  """Returns what a writer reads: states [B, S, D] and their mask [B, S].

  Of the picture, of the text in another language, or of both in one row. Layers
  that were trained on texts alone need a text to make anything of a picture:
  without `<s>` to attend to, E5's give one state for all regions, and, when
  they learn, for all pictures (`config.joint_memory`).

  Args:
    model: bound `M3P`.
    regions: of the pictures; None = they are not looked at.
    extra: of `Batch`; with a source text or without.
    language_B: to write in.
    deterministic: no dropout; None = dropout if there is a key for it.
  """
  is_joint = model.config.joint_memory
  if 'source_ids_BL' in extra:
    rows = batch_lib.Batch(extra['source_ids_BL'], extra['source_mask_BL'],
                           extra['source_language_B'], regions)
  elif is_joint:
    empty_B2 = jnp.tile(jnp.asarray(_EMPTY), (len(regions.mask_BR), 1))
    rows = batch_lib.Batch(
        empty_B2, jnp.ones_like(empty_B2, bool), None, regions)
  else:
    return (model.encode_images(regions, deterministic=deterministic),
            regions.mask_BR)
  encoded = model.encode(rows, deterministic=deterministic)
  states_BSD, mask_BS = encoded.text_BLD, rows.text_mask_BL
  if regions is not None:
    states_BSD = jnp.concatenate([encoded.regions_BRD, states_BSD], axis=1)
    mask_BS = jnp.concatenate([regions.mask_BR, mask_BS], axis=1)
  if is_joint:
    states_BSD = model.add_language(states_BSD, language_B)
  return states_BSD, mask_BS
