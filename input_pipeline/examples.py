"""Makes batches from records that lie in memory, in pure TF ops.

Letters: B rows, L text length, R regions, W words of all rows one after the
other.
"""

import tensorflow as tf

from input_pipeline import phrases
from input_pipeline import tokenizer
from input_pipeline.record_files import store
from m3p_jax import batch as batch_lib


def pad_ids(ids: tf.RaggedTensor, max_length: int,
            ) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns token ids int32 [B, L] as `<s> ids </s> <pad>…`, and their mask.

  Args:
    ids: int32 [B, ids] without `<s>` and `</s>`; what is too long is cut.
    max_length: L.
  """
  length_B1 = tf.minimum(ids.row_lengths(), max_length - 2)[:, tf.newaxis]
  inner_BL = ids.to_tensor(default_value=tokenizer.PAD,
                           shape=(None, max_length - 2))
  rows = tf.shape(inner_BL)[0]
  token_ids_BL = tf.concat([tf.fill([rows, 1], tokenizer.BOS), inner_BL,
                            tf.fill([rows, 1], tokenizer.PAD)], axis=1)
  place_1L = tf.range(max_length, dtype=tf.int64)[tf.newaxis]
  token_ids_BL = tf.where(
      place_1L == length_B1 + 1, tokenizer.EOS, token_ids_BL)
  return (tf.ensure_shape(token_ids_BL, [None, max_length]),
          place_1L <= length_B1 + 1)


def gather_rows(rows: store.Ragged, indices: tf.Tensor) -> tf.RaggedTensor:
  """Returns the rows of these numbers, one after the other."""
  starts = tf.gather(rows.splits, indices)
  places = tf.ragged.range(starts, tf.gather(rows.splits, indices + 1))
  return places.with_values(tf.gather(rows.values, places.values))


def gather_words(captions: store.Captions | store.CaptionWords,
                 caption_B: tf.Tensor, *, max_words: int) -> phrases.Words:
  """Returns the words of captions; of long ones only the first.

  Args:
    captions: their arrays as NumPy arrays or tensors.
    caption_B: int64 [B], numbers of captions.
    max_words: words kept of each.
  """
  starts = tf.gather(captions.word_splits, caption_B)
  ends = tf.gather(captions.word_splits, caption_B + 1)
  places = tf.ragged.range(starts, tf.minimum(ends, starts + max_words))
  return phrases.Words(
      row_splits=places.row_splits,
      keys_W=tf.gather(captions.keys_W, places.values),
      ids=gather_rows(captions.ids, places.values),
      prefix_ids=gather_rows(captions.prefix_ids, places.values),
      suffix_ids=gather_rows(captions.suffix_ids, places.values))


def gather_regions(pictures: store.Pictures, picture_B: tf.Tensor,
                   ) -> batch_lib.Regions:
  """Returns the regions of the pictures of these numbers."""
  return batch_lib.Regions(*(
      tf.gather(array, picture_B)
      for array in (pictures.image_id_N, pictures.features_NRF,
                    pictures.boxes_NRG, pictures.class_ids_NR,
                    pictures.mask_NR)))
