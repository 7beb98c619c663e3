"""Warm start: embedded regions find the text encoder's space.

The contrastive loss with the picture's Transformer pass left out: the picture
is its embedded regions' mean, the caption's vector is what the text encoder
gives. With the encoder frozen a step costs one forward pass over the text:
410 rows a second where the contrastive loss trained 85 (E5's geometry, two
cores, beside other work).
Letters: B rows, E shared space.
Source: deliberate addition to M3P.
"""

import jax

from m3p_jax import batch as batch_lib
from m3p_jax.objectives import contrastive

STREAMS = ('image_text',)


def loss(model, batch: batch_lib.Batch, key: jax.Array):
  """Returns loss and metrics, as those of `contrastive.loss`."""
  del key
  return contrastive.symmetric_loss(
      model, model.embed_regions(batch.regions), batch)
