"""Captioning and translation: write a text, left to right, in its language.

The encoder's layers read the picture alone, or with it a text in another
language, or that alone; the same layers, with attention to what was read,
predict each token from those before it (teacher forcing).
Letters: B rows, P predictions a row.
Source: reference.md, section 3, "decoder use". Deliberate deviation: a text
begins with `<s>` in training and in generation; the release begins generation
with `</s>`, which its decoder never saw first (section 7).
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics
from m3p_jax.objectives import frequencies
from m3p_jax.objectives import parallel

STREAMS = ('image_text', 'parallel')
# Of the geometry; the language is what tells the decoder which one to write.
NEEDS = ('decoder', 'num_languages')


def loss(model, batch: batch_lib.Batch, key: jax.Array, *,
         use_picture: bool = True, sampled_words: int = 0,
         baseline: frequencies.Frequencies | None = None):
  """Returns the cross-entropy in nats of the captions' tokens, and accuracy.

  `</s>` is one of them: the model learns where to stop.

  Args:
    model: bound `M3P`, with a decoder.
    batch: rows with regions, or with a source text, or with both.
    key: of the words that are sampled.
    use_picture: whether a translation looks at the picture, where there is one.
    sampled_words: that are scored in training beside the batch's, to stand for
      the vocabulary (`vocabulary.draw`); 0 = all.
    baseline: adds 'unigram_loss', that of knowing the frequencies alone.
  """
  regions = batch.regions if use_picture else None
  hidden_BPD = model.decode(
      batch.token_ids_BL[:, :-1], batch.text_mask_BL[:, :-1],
      parallel.memory(model, regions, batch.extra, batch.language_B),
      batch.language_B)
  target_BP = batch.token_ids_BL[:, 1:]
  is_token_BP = batch.text_mask_BL[:, 1:]
  nats_BP, likeliest_BP = model.token_nats(
      hidden_BPD, target_BP, key=key, sampled_words=sampled_words)
  weight = is_token_BP.astype(nats_BP.dtype).sum()

  def mean(values_BP):
    return metrics.Mean((values_BP * is_token_BP).sum(), weight)

  others = {'accuracy': mean(likeliest_BP == target_BP)}
  if baseline is not None:
    others['unigram_loss'] = mean(
        -jnp.asarray(baseline.log_written_V())[target_BP])
  return mean(nats_BP), others
