"""Contrastive: the same Transformer as a dual encoder of pictures and text.

Letters: B rows, E shared space.
Source: deliberate addition to M3P (CLIP's symmetric loss): scoring every pair
with the joint encoder does not scale, and its hard negatives come from here.
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics

STREAMS = ('image_text',)


def symmetric_cross_entropy(logits_BB: jax.Array,
                            image_id_B: jax.Array) -> jax.Array:
  """Returns [B] nats: each picture (down) finds its caption and the reverse.

  Rows with equal image ids are neither right nor wrong for each other.
  """
  is_own_BB = jnp.eye(logits_BB.shape[0], dtype=bool)
  is_same_BB = image_id_B[:, None] == image_id_B[None]
  # By a sum: a gather of the diagonal would send its indices between devices.
  right_B = jnp.where(is_own_BB, logits_BB, 0).sum(1)
  logits_BB = jnp.where(is_same_BB & ~is_own_BB, -jnp.inf, logits_BB)
  return 0.5 * (jax.nn.logsumexp(logits_BB, axis=1)
                + jax.nn.logsumexp(logits_BB, axis=0)) - right_B


def loss(model, batch: batch_lib.Batch, key: jax.Array):
  """Returns the symmetric cross-entropy over the (global) batch, in nats.

  And 'accuracy': the picture finds its caption within the batch.
  """
  del key
  return symmetric_loss(model, model.embed_images(batch.regions), batch)


def symmetric_loss(model, image_BE: jax.Array, batch: batch_lib.Batch):
  """Returns `loss` of any unit vectors of the rows' pictures."""
  text_BE = model.embed_texts(
      batch.token_ids_BL, batch.text_mask_BL, batch.language_B)
  logits_BB = model.logit_scale() * jnp.einsum(
      'BE,CE->BC', image_BE, text_BE)
  image_id_B = batch.regions.image_id_B
  nats_B = symmetric_cross_entropy(logits_BB, image_id_B)
  found_B = image_id_B[logits_BB.argmax(1)] == image_id_B
  weight = jnp.float32(nats_B.shape[0])
  return metrics.Mean(nats_B.sum(), weight), {
      'accuracy': metrics.Mean(found_B.astype(jnp.float32).sum(), weight)}
