"""Wrong partners for pictures and captions, from within the batch.

Letters: B rows, N candidates, E shared space.
"""

import jax
import jax.numpy as jnp

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax import metrics

KINDS = ('random', 'hard')


def check_kind(objective: str, negatives: str) -> None:
  """Raises UserError for a kind of negatives that there is not."""
  if negatives not in KINDS:
    raise errors.UserError(
        f'{objective}: negatives is {negatives!r}; allowed: '
        f'{", ".join(KINDS)}')


def dual_scores(model, batch: batch_lib.Batch) -> jax.Array:
  """Returns [B, B] logits of the dual encoder, without gradient or dropout."""
  image_BE = model.embed_images(batch.regions, deterministic=True)
  text_BE = model.embed_texts(
      batch.token_ids_BL, batch.text_mask_BL, batch.language_B,
      deterministic=True)
  return jax.lax.stop_gradient(
      model.logit_scale() * jnp.einsum('BE,CE->BC', image_BE, text_BE))


def draw(key: jax.Array, scores_BB: jax.Array, image_id_B: jax.Array, *,
         count: int) -> tuple[jax.Array, jax.Array]:
  """Returns wrong partners [B, N] for each row, and which of them are valid.

  Partners are drawn without replacement with p ∝ exp(score); rows with an
  equal image id (pictures with the same answers) are never drawn. Where a row
  has fewer than `count` partners, the rest are invalid.
  """
  is_same_BB = image_id_B[:, None] == image_id_B[None]
  # Gumbel top-k draws without replacement from the softmax.
  noisy_BB = scores_BB + jax.random.gumbel(key, scores_BB.shape)
  noisy_BB = jnp.where(is_same_BB, -jnp.inf, noisy_BB)
  top_BN, index_BN = jax.lax.top_k(noisy_BB, count)
  return index_BN, jnp.isfinite(top_BN)


def pair(batch: batch_lib.Batch, image_index: jax.Array,
         text_index: jax.Array) -> batch_lib.Batch:
  """Returns the batch of pairs (picture image_index[i], text text_index[i])."""
  return batch_lib.Batch(
      token_ids_BL=batch.token_ids_BL[text_index],
      text_mask_BL=batch.text_mask_BL[text_index],
      language_B=batch.language_B[text_index],
      regions=jax.tree.map(lambda x: x[image_index], batch.regions))


def judge(logits: jax.Array, valid_B1: jax.Array):
  """Returns the loss and accuracy of pairs, right and wrong ones in turn.

  Args:
    logits: float32 [2 B]: of row i its right pair, then a wrong one.
    valid_B1: whether the wrong one is one, as `draw` tells.
  """
  size = len(valid_B1)
  label = jnp.tile(jnp.array([1.0, 0.0]), size)
  weight = jnp.stack([jnp.ones(size), valid_B1[:, 0]], axis=1).ravel()
  nats = sigmoid_cross_entropy(logits, label)
  is_right = (logits > 0) == (label > 0.5)
  return (metrics.Mean((nats * weight).sum(), weight.sum()),
          {'accuracy': metrics.Mean((is_right * weight).sum(), weight.sum())})


def sigmoid_cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns the nats of 0/1 labels under sigmoid(logits), elementwise."""
  return jax.nn.softplus(logits) - logits * label
