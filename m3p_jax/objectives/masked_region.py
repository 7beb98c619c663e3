"""MC-MRM: predict hidden regions given the caption: feature and class.

Letters: B rows, R regions, P predictions a row, F feature, C classes.
Source: paper, section 3.2; reference.md, sections 1 and 4.
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics
from m3p_jax.objectives import frequencies
from m3p_jax.objectives import masking

STREAMS = ('image_text',)


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         mask_rate: float = 0.15, feature_weight: float = 1.0,
         max_overlap: float = 0.5,
         baseline: frequencies.Frequencies | None = None):
  """Returns class cross-entropy plus feature regression of hidden regions.

  Args:
    model: bound `M3P`.
    batch: rows with regions.
    key: of the masking.
    mask_rate: share of regions predicted.
    feature_weight: of the mean square error of the un-normalised feature.
    max_overlap: see `masking.mask_regions`.
    baseline: adds 'class_unigram_loss' and 'mean_feature_loss', those of
      knowing the frequencies and the mean feature alone.
  """
  masked = masking.mask_regions(
      batch, key, rate=mask_rate, max_overlap=max_overlap)
  regions, positions_BP = batch.regions, masked.positions_BP
  class_BP = jnp.take_along_axis(regions.class_ids_BR, positions_BP, axis=1)
  target_BPF = masking.gather(regions.features_BRF, positions_BP).astype(
      jnp.float32)
  hidden_BPD = model.encode(masked.batch, read=positions_BP).read_BPD
  logits_BPC = model.region_class_logits(hidden_BPD)
  nats_BP = -jnp.take_along_axis(
      jax.nn.log_softmax(logits_BPC), class_BP[..., None], axis=-1)[..., 0]
  weight = masked.weights_BP.sum()

  def mean(values_BP):
    return metrics.Mean((values_BP * masked.weights_BP).sum(), weight)

  def error(predicted):
    return jnp.square(predicted - target_BPF).mean(-1)

  error_BP = error(model.region_features(hidden_BPD))
  others = {'class_loss': mean(nats_BP), 'feature_loss': mean(error_BP),
            'accuracy': mean(logits_BPC.argmax(-1) == class_BP)}
  if baseline is not None:
    others |= {
        'class_unigram_loss': mean(
            -jnp.asarray(baseline.log_class_C)[class_BP]),
        'mean_feature_loss': mean(error(jnp.asarray(baseline.feature_F)))}
  return mean(nats_BP + feature_weight * error_BP), others
