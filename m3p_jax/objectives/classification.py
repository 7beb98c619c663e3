"""Classification: the class of a text about a picture, or about two.

One joint row for each picture, read at position 0; a head of the task's own
makes classes of it. So are visual entailment (XVNLI), questions with a list of
answers (xGQA) and statements about two pictures (MaRVL, NLVR2).
Letters: B rows, X classes.
Source: IGLUE (Bugliarello et al. 2022), which trains VOLTA's classifiers.
"""

import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import metrics

STREAMS = ('labelled', 'pair')
# A head of the task's own: its file, and the option that gives its size.
HEAD = ('classifier', 'num_labels')


def loss(model, batch: batch_lib.Batch, key: jax.Array, *, head: str,
         num_labels: int):
  """Returns the cross-entropy of the labels in nats, and accuracy.

  Args:
    model: bound `M3P`.
    batch: rows with regions and labels; a label of -1 counts for nothing.
    key: unused; this objective draws nothing.
    head: of the task, whose name it has.
    num_labels: X.
  """
  del key, num_labels  # The geometry has it.
  logits_BX = logits(model, batch, head)
  label_B = batch.extra['label_B']
  is_known_B = (label_B >= 0).astype(jnp.float32)
  nats_B = -jnp.take_along_axis(
      jax.nn.log_softmax(logits_BX), jnp.maximum(label_B, 0)[:, None],
      axis=1)[:, 0]
  is_right_B = logits_BX.argmax(1) == label_B
  weight = is_known_B.sum()
  return (metrics.Mean((nats_B * is_known_B).sum(), weight),
          {'accuracy': metrics.Mean((is_right_B * is_known_B).sum(), weight)})


def logits(model, batch: batch_lib.Batch, head: str) -> jax.Array:
  """Returns float32 logits [B, X]."""
  pictures = [batch.regions]
  if 'second' in batch.extra:
    pictures.append(batch.extra['second'])
  count = len(pictures)
  # Row by row, so that no chip needs another's pictures.
  rows = jax.tree.map(
      lambda x: jnp.repeat(x, count, axis=0), batch_lib.Batch(
          batch.token_ids_BL, batch.text_mask_BL, batch.language_B))
  regions = jax.tree.map(
      lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *pictures)
  first = model.encode(
      rows._replace(regions=regions),
      read=jnp.zeros((len(rows.token_ids_BL), 1), jnp.int32)).read_BPD
  return model.head(head, first.reshape(-1, count, first.shape[-1]))
