"""xMLM and MC-MLM: predict hidden tokens of a text, or of a caption given its
regions. One objective: the batch decides.

Letters: B rows, P predictions a row, V vocabulary.
Source: paper, section 3.2; reference.md, section 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics
from m3p_jax.objectives import masking
from m3p_jax.training import frequencies


class Prepared(NamedTuple):
  """Rows with their tokens hidden, and what was there."""
  masked: masking.Masked
  target_BP: jax.Array


def prepare(batch: batch_lib.Batch, key: jax.Array, *,
            mask_rate: float = 0.15) -> Prepared:
  """Returns all that `loss` draws, for rows that may be split afterwards."""
  masked = masking.mask_tokens(batch, key, rate=mask_rate)
  return Prepared(masked, jnp.take_along_axis(
      batch.token_ids_BL, masked.positions_BP, axis=1))


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         mask_rate: float = 0.15,
         baseline: frequencies.Frequencies | None = None):
  """Returns the cross-entropy in nats of the hidden tokens, and accuracy.

  Args:
    model: bound `M3P`.
    batch: rows of text, with or without regions.
    key: random key of the masking.
    mask_rate: share of tokens predicted.
    baseline: adds 'unigram_loss', that of knowing the frequencies alone.

  Returns:
    `Mean` over hidden tokens and {'accuracy': Mean}.
  """
  return prepared_loss(model, prepare(batch, key, mask_rate=mask_rate),
                       baseline=baseline)


def prepared_loss(model, prepared: Prepared, *,
                  baseline: frequencies.Frequencies | None = None):
  """Returns what `loss` does, of prepared rows."""
  masked, target_BP = prepared
  hidden_BPD = model.read_text(masked.batch, masked.positions_BP)
  nats_BP, likeliest_BP = model.token_nats(hidden_BPD, target_BP)
  weight = masked.weights_BP.sum()

  def mean(values_BP):
    return metrics.Mean((values_BP * masked.weights_BP).sum(), weight)

  others = {'accuracy': mean(likeliest_BP == target_BP)}
  if baseline is not None:
    others['unigram_loss'] = mean(
        -jnp.asarray(baseline.log_token_V)[target_BP])
  return mean(nats_BP), others
