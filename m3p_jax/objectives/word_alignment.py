"""Warm start: regions look like words to the layers that read both.

No layer runs: the mean of a picture's embedded regions is drawn to the mean of
its caption's embedded words, so that attention which E5 learned between words
works between words and regions from the first joint step.
Letters: B rows, R regions, L text length, D width.
Source: deliberate addition to M3P.
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics
from m3p_jax.model import m3p
from m3p_jax.objectives import contrastive


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         scale: float = 20.0, distance_weight: float = 1.0):
  """Returns contrastive nats plus the squared distance of the two means.

  Args:
    model: bound `M3P`; only its region embedding gets a gradient.
    batch: rows with regions.
    key: unused; this objective draws nothing.
    scale: factor on cosines, taken around the batch's mean.
    distance_weight: of the squared distance, which fixes place and scale.

  Returns:
    `Mean` over rows and {'accuracy', 'distance'}.
  """
  del key
  image_BD = m3p.mean_pool(
      model.region_embedding(batch.regions), batch.regions.mask_BR)
  text_BD = jax.lax.stop_gradient(m3p.mean_pool(
      model.embed_words(batch.token_ids_BL), batch.text_mask_BL))

  def centre(x_BD):
    return m3p.normalise(x_BD - x_BD.mean(0, keepdims=True))

  logits_BB = scale * jnp.einsum(
      'BD,CD->BC', centre(image_BD), centre(text_BD))
  image_id_B = batch.regions.image_id_B
  nats_B = contrastive.symmetric_cross_entropy(logits_BB, image_id_B)
  distance_B = jnp.square(image_BD - text_BD).sum(-1)
  found_B = image_id_B[logits_BB.argmax(1)] == image_id_B
  weight = jnp.float32(nats_B.shape[0])

  def mean(values_B):
    return metrics.Mean(values_B.astype(jnp.float32).sum(), weight)

  return mean(nats_B + distance_weight * distance_B), {
      'accuracy': mean(found_B), 'distance': mean(distance_B)}
