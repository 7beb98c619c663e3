"""Reads the pictures and captions of a batch straight from the records.

For sets that do not fit in memory: the same rows as from memory, each read
where the index says it lies. Records are read several at a time, and only
those that this host needs. In pure TF ops.
Letters: B rows, N pictures.
"""

from collections.abc import Callable, Sequence
import os

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
    store.Captions | records.CaptionWords, tf.Tensor, batch_lib.Regions]]


def open_records(data_dir: str | os.PathLike[str], datasets: Sequence[str],
                 split: str) -> tuple[list[index_lib.Index], Fetch]:
  """Returns the index of each dataset, and what fetches rows of all together.

  Raises:
    UserError: see `store.open_builder`; or features differ in size or storage.
  """
  indices, kinds = [], []
  for name in datasets:
    builder = store.open_builder(data_dir, name, split)
    index, feature_dim, storage = store.open_index(builder, split)
    indices.append(index)
    kinds.append((feature_dim, storage))
  if len(set(kinds)) > 1:
    raise errors.UserError(
        'datasets whose region features differ in size or storage cannot be '
        'mixed: ' + ', '.join(f'{name} has {size} numbers in {storage}' for
                              name, (size, storage)
                              in zip(datasets, kinds, strict=True)))
  return indices, _make_fetch(index_lib.join(indices), *kinds[0])


def _make_fetch(index: index_lib.Index, feature_dim: int,
                storage: str) -> Fetch:
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
        tf.ensure_shape(serialized_B, caption_B.shape),
        records.image_text_spec(storage))
    captions, first_B = records.parse_words(columns)
    return captions, first_B + caption_B - tf.gather(first_N, picture_B), (
        batch_lib.Regions(
            tf.gather(image_id_N, picture_B), *records.parse_regions(
                columns, num_regions, feature_dim)))

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
