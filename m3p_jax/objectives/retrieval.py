"""Retrieval fine-tuning of the joint encoder: candidates for each anchor.

Letters: B rows, A anchors among them, N candidates (the first is right).
Source: reference.md, section 5 ("Fine-tuning"): N candidates a direction, text
→ image and image → text, binary cross-entropy of each. Both directions count
alike, so that the right pair, encoded once, counts in both. Deliberate
additions: the softmax over candidates, hard negatives, learning on top of the
dual encoder's score, and rows that are candidates alone. Negatives come from
the whole (global) batch, whatever their language.
"""

import jax
import jax.numpy as jnp

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax import metrics
from m3p_jax.objectives import negatives as negatives_lib

STREAMS = ('image_text',)


def _candidate_pairs(key, scores_BB, image_id_B, num_candidates, num_anchors):
  """Returns indices (picture, text) [A, 2 N - 1] of pairs, their validity."""
  size = image_id_B.shape[0]
  count = num_candidates - 1
  text_key, image_key = jax.random.split(key)
  texts_BN, text_valid_BN = negatives_lib.draw(
      text_key, scores_BB, image_id_B, count=count)
  images_BN, image_valid_BN = negatives_lib.draw(
      image_key, scores_BB.T, image_id_B, count=count)
  rows_B1 = jnp.arange(size)[:, None]
  rows_BN = jnp.broadcast_to(rows_B1, texts_BN.shape)
  # The right pair is encoded once and serves both directions.
  image_index = jnp.concatenate([rows_B1, rows_BN, images_BN], axis=1)
  text_index = jnp.concatenate([rows_B1, texts_BN, rows_BN], axis=1)
  valid = jnp.concatenate(
      [jnp.ones((size, 1), bool), text_valid_BN, image_valid_BN], axis=1)
  # Spread over the rows, as these are over devices.
  anchors = slice(None, None, size // num_anchors)
  return image_index[anchors], text_index[anchors], valid[anchors]


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         num_candidates: int = 4, num_anchors: int = 0,
         negatives: str = 'random', binary_weight: float = 1.0,
         softmax_weight: float = 0.0, add_dual_score: bool = False):
  """Returns the loss of telling the right candidate from wrong ones, in nats.

  Args:
    model: bound `M3P`.
    batch: rows with regions, at least `num_candidates` of them.
    key: of the candidates.
    num_candidates: N, one right and N-1 wrong, in each direction.
    num_anchors: A, a divisor of the rows: so many of them are asked, the others
      are candidates alone, since re-ranking meets the hardest of many; 0 = all.
    negatives: 'random', or 'hard': drawn with p ∝ exp(dual logit).
    binary_weight: of the binary cross-entropy of every pair (the release).
    softmax_weight: of the cross-entropy over the candidates.
    add_dual_score: the softmax sees dual logit + match logit, as re-ranking
      does, so that the joint encoder learns what the dual one lacks.

  Raises:
    UserError: unknown `negatives`, fewer rows than candidates, or a number of
      anchors that does not divide the rows.
  """
  size = batch.token_ids_BL.shape[0]
  negatives_lib.check_kind('retrieval', negatives)
  if not 2 <= num_candidates <= size:
    raise errors.UserError(
        f'retrieval: num_candidates is {num_candidates}; allowed: 2 to the '
        f'rows that are worked on at once ({size})')
  num_anchors = num_anchors or size
  if num_anchors < 0 or size % num_anchors:
    raise errors.UserError(
        f'retrieval: num_anchors is {num_anchors}; allowed: 0, or a divisor of '
        f'the rows that are worked on at once ({size})')
  dual_BB = jnp.zeros((size, size))
  if negatives == 'hard' or add_dual_score:
    dual_BB = negatives_lib.dual_scores(model, batch)
  image_index, text_index, valid = _candidate_pairs(
      key, dual_BB if negatives == 'hard' else jnp.zeros_like(dual_BB),
      batch.regions.image_id_B, num_candidates, num_anchors)
  logits = model.match_rows(negatives_lib.pair(
      batch, image_index.ravel(), text_index.ravel()))
  logits = logits.reshape(image_index.shape)

  def directions(x):
    """Returns [2, A, N]: the right pair with wrong texts, and with pictures."""
    return jnp.stack([x[:, :num_candidates], jnp.concatenate(
        [x[:, :1], x[:, num_candidates:]], axis=1)])

  is_first = jnp.arange(logits.shape[1])[None] == 0
  binary = directions(negatives_lib.sigmoid_cross_entropy(
      logits, is_first.astype(jnp.float32)) * valid)
  # Averaged over a row's candidates, so the weight of a row is 1.
  binary_A = (binary.sum(-1) / directions(valid).sum(-1)).mean(0)

  scores = logits
  if add_dual_score:
    scores = scores + dual_BB[image_index, text_index]
  scores = jnp.where(valid, scores, -jnp.inf)
  softmax_A = jax.nn.logsumexp(
      directions(scores), axis=-1).mean(0) - scores[:, 0]
  nats_A = binary_weight * binary_A + softmax_weight * softmax_A
  first_A = scores.argmax(1) == 0
  weight = jnp.float32(num_anchors)
  return (metrics.Mean(nats_A.sum(), weight),
          {'accuracy': metrics.Mean(
              first_A.astype(jnp.float32).sum(), weight)})
