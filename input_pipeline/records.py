"""The kinds of TFDS record, and how keys of phrases are made.

Every dataset is prepared into one of these; nothing else is read in training.
Letters: B records, R regions, F region feature, G=5 box, W words of all
captions one after the other.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import tokenizer

STORAGE = ('float16', 'int8')
_INT8_MAX = 127
BOX_BYTES = 16  # Four float32.
# Of text, a record has at least so many ids, but for the last ones: a row is
# one read, however short sentences are, and reads little that it needs not.
_TEXT_IDS = 2048


class Ragged(NamedTuple):
  """Rows of different length: row i is `values[splits[i]:splits[i + 1]]`."""
  values: Any
  splits: Any


class CaptionWords(NamedTuple):
  """Captions as words, of arrays or tensors; see `store.Captions`."""
  word_splits: Any
  keys_W: Any
  ids: Ragged
  prefix_ids: Ragged
  suffix_ids: Ragged


class Kind(NamedTuple):
  """What records of captions hold.

  Attributes:
    feature_dim: numbers of a region.
    storage: of these, one of `STORAGE`.
    num_pictures: of a record; 0 = texts alone.
    has_labels: whether captions have classes.
  """
  feature_dim: int
  storage: str
  num_pictures: int = 1
  has_labels: bool = False


# What the columns of each picture of a record begin with.
_PICTURES = ('', 'second/')


def image_text_features(feature_dim: int, storage: str = 'float16',
                        num_pictures: int = 1, *, has_labels: bool = False,
                        ) -> tfds.features.FeaturesDict:
  """Returns the record of a picture with its regions and captions.

  Or of two pictures, or of captions alone; arguments as of `Kind`.

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
  for part in tokenizer.PARTS:
    caption[f'{part}_ids'] = tfds.features.Sequence(np.int32)
    caption[f'{part}_lengths'] = tfds.features.Sequence(np.int32)
  if has_labels:
    caption['label'] = np.int64
  columns = {
      'height': np.int32,
      'width': np.int32,
      'boxes': tfds.features.Tensor(
          shape=(None, 4), dtype=np.float32, encoding='bytes'),
      'class_ids': tfds.features.Tensor(
          shape=(None,), dtype=np.int32, encoding='bytes'),
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
      'captions': tfds.features.Sequence(caption)}
      | (columns if num_pictures else {})
      | ({'second': columns} if num_pictures == 2 else {}))


def kind_of(features: tfds.features.FeaturesDict) -> Kind:
  """Returns what records with these features hold."""
  has_labels = 'label' in features['captions'].feature
  if 'features' not in features:
    return Kind(0, STORAGE[0], 0, has_labels)
  regions = features['features']
  return Kind(regions.shape[-1], np.dtype(regions.np_dtype).name,
              2 if 'second' in features else 1, has_labels)


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


def image_text_spec(kind: Kind) -> dict[str, Any]:
  """Returns how TFDS lays an `ImageText` record out, as far as rows need it."""
  return words_spec(has_labels=kind.has_labels) | {
      f'{prefix}{name}': column for prefix in _PICTURES[:kind.num_pictures]
      for name, column in regions_spec(kind.storage).items()}


def regions_spec(storage: str) -> dict[str, Any]:
  """Returns the part of `image_text_spec` that `parse_regions` reads."""
  spec: dict[str, Any] = dict.fromkeys(
      ['features', 'boxes', 'class_ids'],
      tf.io.FixedLenFeature([], tf.string))
  spec |= dict.fromkeys(
      ['height', 'width'], tf.io.FixedLenFeature([], tf.int64))
  if storage == 'int8':
    spec['scales'] = spec['features']
  return spec


def words_spec(*, has_labels: bool = False) -> dict[str, Any]:
  """Returns the part of `image_text_spec` that `parse_words` reads."""
  spec: dict[str, Any] = {}
  if has_labels:
    spec['label'] = tf.io.RaggedFeature(tf.int64, value_key='captions/label')
  spec['keys'] = tf.io.RaggedFeature(
      tf.int64, value_key='captions/keys/ragged_flat_values',
      partitions=[tf.io.RaggedFeature.RowLengths(
          'captions/keys/ragged_row_lengths_0')], row_splits_dtype=tf.int64)
  for part in tokenizer.PARTS:
    for name in (f'{part}_ids', f'{part}_lengths'):
      spec[name] = tf.io.RaggedFeature(
          tf.int64, value_key=f'captions/{name}/ragged_flat_values',
          row_splits_dtype=tf.int64)
  return spec


def parse_words(columns: dict[str, Any]) -> tuple[CaptionWords, tf.Tensor]:
  """Returns the captions of records, and each record's first: int64 [B].

  Args:
    columns: parsed by `image_text_spec`.
  """
  keys = columns['keys']
  word, prefix, suffix = (
      Ragged(tf.cast(columns[f'{part}_ids'].flat_values, tf.int32),
             tf.concat([[0], tf.cumsum(
                 columns[f'{part}_lengths'].flat_values)], axis=0))
      for part in tokenizer.PARTS)
  return CaptionWords(
      word_splits=keys.values.row_splits, keys_W=keys.flat_values,
      ids=word, prefix_ids=prefix, suffix_ids=suffix), keys.row_splits[:-1]


def parse_regions(
    columns: dict[str, Any], num_regions: int, feature_dim: int, *,
    picture: int = 0) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns the regions of records, as `batch.Regions` has them.

  features float16 [B, R, F], boxes float32 [B, R, 5], class ids int32 [B, R]
  and their mask bool [B, R].

  Args:
    columns: parsed by `image_text_spec`.
    num_regions: R; where a record has fewer, zeros follow.
    feature_dim: F.
    picture: of a record with several, which one.
  """
  prefix = _PICTURES[picture]
  if prefix:
    columns = {name.removeprefix(prefix): column
               for name, column in columns.items() if name.startswith(prefix)}
  height_B1, width_B1 = (
      tf.cast(columns[name], tf.float32)[:, tf.newaxis]
      for name in ('height', 'width'))
  x1, y1, x2, y2 = tf.unstack(
      _decode(columns['boxes'], tf.float32, num_regions, 4), axis=-1)
  x1, x2 = x1 / width_B1, x2 / width_B1
  y1, y2 = y1 / height_B1, y2 / height_B1
  count_B1 = (tf.strings.length(columns['boxes']) // BOX_BYTES)[:, tf.newaxis]
  return (_features(columns, num_regions, feature_dim),
          tf.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], axis=-1),
          _decode(columns['class_ids'], tf.int32, num_regions),
          tf.range(num_regions)[tf.newaxis] < count_B1)


def _features(columns: dict[str, Any], num_regions: int,
              feature_dim: int) -> tf.Tensor:
  shape = (num_regions, feature_dim)
  if 'scales' not in columns:
    # The op that pads knows no float16.
    return tf.bitcast(_decode(columns['features'], tf.uint16, *shape),
                      tf.float16)
  scales_BR1 = _decode(columns['scales'], tf.float32, num_regions, 1)
  return tf.cast(scales_BR1 * tf.cast(
      _decode(columns['features'], tf.int8, *shape), tf.float32), tf.float16)


def _decode(column_B: tf.Tensor, dtype: tf.DType, *shape: int) -> tf.Tensor:
  """Returns the numbers in bytes [B], zeros where a row has fewer: [B, …]."""
  num_bytes = int(np.prod(shape)) * dtype.size
  # Where nothing is padded, the op that pads would write all of it twice.
  numbers = tf.cond(
      tf.reduce_all(tf.strings.length(column_B) == num_bytes),
      lambda: tf.io.decode_raw(column_B, dtype),
      lambda: tf.io.decode_raw(column_B, dtype, fixed_length=num_bytes))
  # B as it is known before a record is read: a step is compiled from it.
  return tf.ensure_shape(
      tf.reshape(numbers, [-1, *shape]), [column_B.shape[0], *shape])


def text_features() -> tfds.features.FeaturesDict:
  """Returns the record of sentences in one language.

  `ids` are theirs, one sentence after the other, each ended by `</s>`. A
  record holds small numbers in few bytes: two or three an id.
  """
  return tfds.features.FeaturesDict({
      'language': tfds.features.Text(),
      'ids': tfds.features.Sequence(np.int32)})


def pack_texts(texts: Iterable[tuple[str, Sequence[int]]],
               ) -> Iterator[dict[str, Any]]:
  """Yields the records of sentences, given as (language, ids).

  Those of a language stay in their order.
  """
  waiting: dict[str, list[int]] = {}
  for language, ids in texts:
    found = waiting.setdefault(language, [])
    found += [*ids, tokenizer.EOS]
    if len(found) >= _TEXT_IDS:
      yield {'language': language, 'ids': waiting.pop(language)}
  for language, found in waiting.items():
    yield {'language': language, 'ids': found}


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
