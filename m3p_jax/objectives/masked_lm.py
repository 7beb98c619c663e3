"""xMLM and MC-MLM: predict hidden tokens of a text, or of a caption given its
regions; TLM and VTLM: of two texts that say the same, without a picture or with
it. One objective: the batch decides.

Letters: B rows, P predictions a row, V vocabulary.
Source: paper, section 3.2; reference.md, section 1. TLM: Conneau and Lample
2019, but that positions run on from the first text to the second; VTLM:
Caglayan et al. 2021.
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics
from m3p_jax.objectives import frequencies
from m3p_jax.objectives import masking
from m3p_jax.objectives import parallel

STREAMS = ('text', 'image_text', 'parallel')


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         mask_rate: float = 0.15, use_picture: bool = True,
         baseline: frequencies.Frequencies | None = None):
  """Returns the cross-entropy in nats of the hidden tokens, and accuracy.

  Args:
    model: bound `M3P`.
    batch: rows of text, with or without regions.
    key: of the masking.
    mask_rate: share of tokens predicted.
    use_picture: whether two texts are read with their picture, where they have
      one: VTLM, or TLM.
    baseline: adds 'unigram_loss', that of knowing the frequencies alone.
  """
  if 'source_ids_BL' in batch.extra:
    batch = parallel.join(batch, use_picture=use_picture)
  masked = masking.mask_tokens(batch, key, rate=mask_rate)
  target_BP = jnp.take_along_axis(
      batch.token_ids_BL, masked.positions_BP, axis=1)
  hidden_BPD = model.encode(
      masked.batch, read=batch.num_regions + masked.positions_BP).read_BPD
  nats_BP, likeliest_BP = model.token_nats(hidden_BPD, target_BP)
  weight = masked.weights_BP.sum()

  def mean(values_BP):
    return metrics.Mean((values_BP * masked.weights_BP).sum(), weight)

  others = {'accuracy': mean(likeliest_BP == target_BP)}
  if baseline is not None:
    others['unigram_loss'] = mean(
        -jnp.asarray(baseline.log_token_V)[target_BP])
  return mean(nats_BP), others
