"""MC-VLM: does the caption belong to the picture? Right and wrong pairs in one
encode.

Letters: B rows.
Source: paper, section 3.2. Deliberate deviations: one wrong pair for each
right one, made within the batch by another caption (of random pairs as many are
the same whichever side changes); a positive is never drawn as its own negative
(reference.md, section 7).
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.objectives import negatives as negatives_lib

STREAMS = ('image_text',)


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         negatives: str = 'random'):
  """Returns the binary cross-entropy of right and wrong pairs, and accuracy.

  Args:
    model: bound `M3P`.
    batch: rows with regions.
    key: of the negatives.
    negatives: 'random', or 'hard': drawn with p ∝ exp(the dual encoder's
      logit); another is a UserError.
  """
  negatives_lib.check_kind('matching', negatives)
  size = batch.token_ids_BL.shape[0]
  scores_BB = (negatives_lib.dual_scores(model, batch)
               if negatives == 'hard' else jnp.zeros((size, size)))
  wrong_B1, valid_B1 = negatives_lib.draw(
      key, scores_BB, batch.regions.image_id_B, count=1)
  # A picture with its own caption, and with another's. To change pictures,
  # every chip would gather all pictures of the step.
  both_B2 = jnp.stack([jnp.arange(size), wrong_B1[:, 0]], axis=1)
  pairs = jax.tree.map(lambda x: x[both_B2.ravel()], batch._replace(
      regions=None))._replace(regions=jax.tree.map(
          lambda x: jnp.repeat(x, 2, axis=0), batch.regions))
  return negatives_lib.judge(model.match_rows(pairs), valid_B1)
