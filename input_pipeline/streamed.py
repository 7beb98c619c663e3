"""Reads the pictures and captions of a batch straight from the records.

For sets that do not fit in memory: the same rows as from memory, each read
where the index says it lies. Records are read several at a time, and only
those that this host needs. In pure TF ops.
Letters: B rows, N pictures, R regions, F region feature, C captions of the
batch's pictures, W words.
"""

from collections.abc import Callable, Sequence
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import index as index_lib
from input_pipeline import records
from input_pipeline import store
from m3p_jax import batch as batch_lib

# Records read at the same time: hides the delay of a disk or a network.
_PARALLEL_READS = 16


# Numbers of captions int64 [B] → captions, the rows' numbers in these int64
# [B], and the rows' regions.
Fetch = Callable[[tf.Tensor], tuple[
    store.Captions | store.CaptionWords, tf.Tensor, batch_lib.Regions]]


class Source(NamedTuple):
  """Records on disk.

  Attributes:
    table: where the records of all datasets are.
    feature_dim: F.
    storage: of all features: 'float16' or 'int8'.
  """
  table: index_lib.Index
  feature_dim: int
  storage: str


def find(data_dir: str | os.PathLike[str], datasets: Sequence[str],
         split: str) -> tuple[list[index_lib.Index], Source]:
  """Returns the index of each dataset, and the source of all together.

  Raises:
    UserError: see `store.open_builder`; or features differ in size or storage.
  """
  indices, kinds = [], []
  for name in datasets:
    builder = store.open_builder(data_dir, name, split)
    indices.append(index_lib.read(
        pathlib.Path(builder.data_dir), split,
        map(str, builder.info.splits[split].filepaths)))
    features = builder.info.features['features']
    kinds.append((features.shape[-1], np.dtype(features.np_dtype).name))
  if len(set(kinds)) > 1:
    raise errors.UserError(
        'datasets whose region features differ in size or storage cannot be '
        'mixed: ' + ', '.join(f'{name} has {size} numbers in {storage}' for
                              name, (size, storage)
                              in zip(datasets, kinds, strict=True)))
  return indices, Source(index_lib.join(indices), *kinds[0])


def make_fetch(source: Source) -> Fetch:
  """Returns what reads captions by number, with their pictures."""
  index = source.table
  num_regions = int(index.num_regions_N.max())
  # A buffer makes a remote record one request; a local one it copies.
  is_buffered = any('://' in path for path in index.paths)
  ends_N = np.cumsum(index.num_captions_N, dtype=np.int64)
  # Tensors are captured once; arrays would be copied into every graph.
  picture_C, first_N, paths, file_N, offset_N, bytes_N, image_id_N = map(
      tf.constant, (
          np.repeat(np.arange(len(ends_N)), index.num_captions_N),
          ends_N - index.num_captions_N, index.paths, index.file_N,
          index.offset_N, index.bytes_N, index.image_id_N))

  def fetch(caption_B):
    picture_B = tf.gather(picture_C, caption_B)
    serialized_B = _read(
        tf.gather(paths, tf.gather(file_N, picture_B)),
        tf.gather(offset_N, picture_B), tf.gather(bytes_N, picture_B),
        is_buffered=is_buffered)
    columns = tf.io.parse_example(
        tf.ensure_shape(serialized_B, caption_B.shape), _spec(source.storage))
    captions, first_B = _captions(columns)
    return captions, first_B + caption_B - tf.gather(first_N, picture_B), (
        batch_lib.Regions(
            tf.gather(image_id_N, picture_B),
            _features(columns, source, num_regions),
            *_boxes(columns, num_regions)))

  return fetch


def _read(path_B: tf.Tensor, offset_B: tf.Tensor, bytes_B: tf.Tensor, *,
          is_buffered: bool) -> tf.Tensor:
  """Returns the records' content: string [B]."""

  def read_one(path, offset, num_bytes):
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[tf.newaxis], compression_type='',
        buffer_size=num_bytes if is_buffered else np.int64(0),
        byte_offsets=offset[tf.newaxis])
    return tf.data.experimental.from_variant(
        variant, tf.TensorSpec([], tf.string)).take(1).get_single_element()

  rows = tf.data.Dataset.from_tensor_slices((path_B, offset_B, bytes_B))
  return rows.map(read_one, num_parallel_calls=_PARALLEL_READS).batch(
      tf.size(path_B, tf.int64)).get_single_element()


def _spec(storage: str) -> dict[str, Any]:
  """Returns how TFDS lays an `ImageText` record out, as far as it is read."""
  spec: dict[str, Any] = dict.fromkeys(
      ['features', 'boxes', 'class_ids'],
      tf.io.FixedLenFeature([], tf.string))
  spec |= dict.fromkeys(
      ['height', 'width'], tf.io.FixedLenFeature([], tf.int64))
  if storage == 'int8':
    spec['scales'] = spec['features']
  spec['keys'] = tf.io.RaggedFeature(
      tf.int64, value_key='captions/keys/ragged_flat_values',
      partitions=[tf.io.RaggedFeature.RowLengths(
          'captions/keys/ragged_row_lengths_0')], row_splits_dtype=tf.int64)
  for part in records.PARTS:
    for name in (f'{part}_ids', f'{part}_lengths'):
      spec[name] = tf.io.RaggedFeature(
          tf.int64, value_key=f'captions/{name}/ragged_flat_values',
          row_splits_dtype=tf.int64)
  return spec


def _captions(columns: dict[str, Any],
              ) -> tuple[store.CaptionWords, tf.Tensor]:
  """Returns the captions of all pictures, and each picture's first."""
  keys = columns['keys']
  word, prefix, suffix = (
      store.Ragged(tf.cast(columns[f'{part}_ids'].flat_values, tf.int32),
                   tf.concat([[0], tf.cumsum(
                       columns[f'{part}_lengths'].flat_values)], axis=0))
      for part in records.PARTS)
  return store.CaptionWords(
      word_splits=keys.values.row_splits, keys_W=keys.flat_values,
      ids=word, prefix_ids=prefix, suffix_ids=suffix), keys.row_splits[:-1]


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


def _features(columns: dict[str, Any], source: Source,
              num_regions: int) -> tf.Tensor:
  """Returns float16 [B, R, F]."""
  shape = (num_regions, source.feature_dim)
  if source.storage != 'int8':
    # The op that pads knows no float16.
    return tf.bitcast(_decode(columns['features'], tf.uint16, *shape),
                      tf.float16)
  scales_BR1 = _decode(columns['scales'], tf.float32, num_regions, 1)
  return tf.cast(scales_BR1 * tf.cast(
      _decode(columns['features'], tf.int8, *shape), tf.float32), tf.float16)


def _boxes(columns: dict[str, Any],
           num_regions: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns boxes float32 [B, R, 5], class ids int32 and masks [B, R]."""
  size_B1 = {name: tf.cast(columns[name], tf.float32)[:, tf.newaxis]
             for name in ('height', 'width')}
  x1, y1, x2, y2 = tf.unstack(
      _decode(columns['boxes'], tf.float32, num_regions, 4), axis=-1)
  x1, x2 = x1 / size_B1['width'], x2 / size_B1['width']
  y1, y2 = y1 / size_B1['height'], y2 / size_B1['height']
  count_B1 = (tf.strings.length(columns['boxes'])
              // index_lib.BOX_BYTES)[:, tf.newaxis]
  return (tf.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], axis=-1),
          _decode(columns['class_ids'], tf.int32, num_regions),
          tf.range(num_regions)[tf.newaxis] < count_B1)
