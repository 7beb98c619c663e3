"""The two kinds of TFDS record, and how keys of phrases are made.

Every dataset is prepared into one of these; nothing else is read in training.
Letters: R regions, F region feature, W words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# The parts of a word whose token ids are kept apart; see `captions.py`.
PARTS = ('word', 'prefix', 'suffix')
STORAGE = ('float16', 'int8')
_INT8_MAX = 127


def image_text_features(feature_dim: int, storage: str = 'float16',
                        ) -> tfds.features.FeaturesDict:
  """Returns the record of a picture with its regions and captions.

  A caption's words are flattened: `word_ids` holds the token ids of all words
  one after the other, `word_lengths` how many ids each word has. Keys and
  punctuation are those of captions that dictionaries translate from; for
  others the keys are 0 and the punctuation is empty: a small number is a byte
  of the record, a key ten. Storage 'int8' has a scale for each region.
  """
  caption: dict[str, Any] = {
      'language': tfds.features.Text(),
      'text': tfds.features.Text(),
      'keys': tfds.features.Sequence(np.int64)}
  for part in PARTS:
    caption[f'{part}_ids'] = tfds.features.Sequence(np.int32)
    caption[f'{part}_lengths'] = tfds.features.Sequence(np.int32)
  columns = {
      'features': tfds.features.Tensor(
          shape=(None, feature_dim), dtype=np.dtype(storage).type,
          encoding='bytes')}
  if storage == 'int8':
    columns['scales'] = tfds.features.Tensor(
        shape=(None,), dtype=np.float32, encoding='bytes')
  return tfds.features.FeaturesDict({
      'image_id': tfds.features.Text(),
      # Pictures of a group share their right answers.
      'group': tfds.features.Text(),
      'height': np.int32,
      'width': np.int32,
      'boxes': tfds.features.Tensor(
          shape=(None, 4), dtype=np.float32, encoding='bytes'),
      'class_ids': tfds.features.Tensor(
          shape=(None,), dtype=np.int32, encoding='bytes'),
      'captions': tfds.features.Sequence(caption)} | columns)


def pack_features(features_RF: np.ndarray, storage: str,
                  ) -> dict[str, np.ndarray]:
  """Returns the record's columns of a picture's features.

  int8: the largest number of a region becomes ±127. What the model sees is
  L2-normalised, so that the scale itself is never felt.
  """
  if storage != 'int8':
    return {'features': features_RF.astype(np.float16)}
  features_RF = features_RF.astype(np.float32)
  scales_R = np.abs(features_RF).max(axis=1, initial=0) / _INT8_MAX
  # A region of zeros stays one.
  divisor_R1 = np.where(scales_R > 0, scales_R, 1)[:, np.newaxis]
  return {'features': np.rint(features_RF / divisor_R1).astype(np.int8),
          'scales': scales_R.astype(np.float32)}


def unpack_features(record: Mapping[str, Any]) -> np.ndarray:
  """Returns float16 [R, F] of a record's columns, read as NumPy arrays."""
  features_RF = np.asarray(record['features'])
  if 'scales' not in record:
    return features_RF
  scales_R1 = np.asarray(record['scales'])[:, np.newaxis]
  return (features_RF * scales_R1).astype(np.float16)


def text_features() -> tfds.features.FeaturesDict:
  """Returns the record of a sentence; `ids` are without `<s>` and `</s>`."""
  return tfds.features.FeaturesDict({
      'text_id': tfds.features.Text(),
      'language': tfds.features.Text(),
      'text': tfds.features.Text(),
      'ids': tfds.features.Sequence(np.int32)})


# Odd 64-bit constants of splitmix64, as signed numbers.
_FACTOR = np.int64(-7046029254386353131)
_FINAL = np.int64(-4658895280553007687)


def mix_keys(first: Any, second: Any) -> Any:
  """Returns int64 hashes of pairs: the same in NumPy and in TensorFlow.

  The key of a phrase is its words' keys mixed from the left:
  mix(mix(k1, k2), k3). Arguments are broadcast.
  """
  if tf.is_tensor(first) or tf.is_tensor(second):
    mixed = tf.bitwise.bitwise_xor(
        *_broadcast(first * _FACTOR, second + _FINAL))
    mixed = tf.bitwise.bitwise_xor(
        mixed, tf.bitwise.right_shift(mixed, tf.constant(29, tf.int64)))
    return mixed * _FINAL
  with np.errstate(over='ignore'):
    mixed = np.int64(first) * _FACTOR ^ (np.int64(second) + _FINAL)
    mixed = mixed ^ (mixed >> np.int64(29))
    return mixed * _FINAL


def _broadcast(first: tf.Tensor, second: Any) -> Sequence[Any]:
  """Returns both in one shape.

  The bitwise ops broadcast a scalar as well, but only their first operand's
  shape is what they promise.
  """
  if isinstance(second, np.integer):
    return first, second
  zero = tf.zeros_like(first) * tf.zeros_like(second)
  return first + zero, second + zero
