"""CLCM: do two captions in two languages mean the same? Right and wrong pairs.

Both stand in one row behind their picture, and the release's second head reads
position 0, as its match head does; without a picture that is the first text's
`<s>`.
Letters: B rows.
Source: reference.md, "More facts of the release". One wrong pair for each right
one, made within the batch by another caption, as in `matching`.
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.objectives import negatives
from m3p_jax.objectives import parallel

STREAMS = ('parallel',)
NEEDS = ('caption_match',)


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         use_picture: bool = True):
  """Returns the binary cross-entropy of right and wrong pairs, and accuracy.

  Args:
    model: bound `M3P`.
    batch: rows with a second text.
    key: of the wrong pairs.
    use_picture: whether the picture is read, where there is one.
  """
  size = len(batch.token_ids_BL)
  # Without pictures any other row is another text.
  group_B = (jnp.arange(size) if batch.regions is None
             else batch.regions.image_id_B)
  wrong_B1, valid_B1 = negatives.draw(
      key, jnp.zeros((size, size)), group_B, count=1)
  both = jnp.stack([jnp.arange(size), wrong_B1[:, 0]], axis=1).ravel()
  twice = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), 2, axis=0), batch)
  pairs = parallel.join(twice._replace(
      token_ids_BL=batch.token_ids_BL[both],
      text_mask_BL=batch.text_mask_BL[both],
      language_B=batch.language_B[both]), use_picture=use_picture)
  first = model.encode(
      pairs, read=jnp.zeros((2 * size, 1), jnp.int32)).read_BPD
  return negatives.judge(model.caption_match_logits(first), valid_B1)
