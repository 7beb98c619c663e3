"""Reads the rows of a batch straight from the records.

Each row is read where the index says that it lies, several at a time, and only
those that this host needs: memory holds the index, and what the operating
system keeps of the files. In pure TF ops.
Letters: B rows, N records, M records of text, stream by stream, S streams, T
token ids read, E sentences among them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import index as index_lib
from input_pipeline import records
from input_pipeline import store
from input_pipeline import tokenizer
from m3p_jax import batch as batch_lib

# Records that a search reads at the same time.
_AT_ONCE = 16


class Rows(NamedTuple):
  """What was fetched of B captions and their pictures.

  Attributes:
    captions: theirs, and others of the same pictures.
    shift_B: int64 [B], what makes a number of any caption of a row's picture
      its number in `captions`.
    regions: of the rows' pictures: of each row none, one or two.
    label_B: int32 [B], numbers of classes; None where captions have none.
  """
  captions: store.Captions | records.CaptionWords
  shift_B: tf.Tensor
  regions: tuple[batch_lib.Regions, ...]
  label_B: tf.Tensor | None = None


# Numbers of captions int64 [B] → their rows.
Fetch = Callable[[tf.Tensor], Rows]


class Texts(NamedTuple):
  """The rows of text of all (dataset, language) streams.

  Attributes:
    sizes: rows of each stream.
    languages: their languages.
    fetch: streams int64 [B], and numbers of rows in them int64 [B] → ids
      RaggedTensor int32 [B, ids].
  """
  sizes: list[int]
  languages: list[str]
  fetch: Callable[[tf.Tensor, tf.Tensor], tf.RaggedTensor]


def picture_rows(datasets: Sequence[str], indices: Sequence[index_lib.Pictures],
                 kinds: Sequence[records.Kind], *, parallel: int) -> Fetch:
  """Returns what fetches rows of all datasets together.

  Args:
    datasets: names, for messages.
    indices: theirs.
    kinds: what their records hold; what not all of them have is not read.
    parallel: records read at the same time.

  Raises:
    UserError: features differ in size or storage.
  """
  if len({kind[:2] for kind in kinds}) > 1:
    raise errors.UserError(
        'datasets whose region features differ in size or storage cannot be '
        'mixed: ' + ', '.join(
            f'{name} has {kind.feature_dim} numbers in {kind.storage}'
            for name, kind in zip(datasets, kinds, strict=True)))
  kind = kinds[0]._replace(
      num_pictures=min(kind.num_pictures for kind in kinds),
      has_labels=all(kind.has_labels for kind in kinds))
  index = index_lib.join(indices)
  num_regions = int(index.num_regions_N.max())
  ends_N = np.cumsum(index.num_captions_N, dtype=np.int64)
  read = _make_read(index, parallel)
  picture_C, first_N, image_id_N = map(tf.constant, (
      np.repeat(np.arange(len(ends_N)), index.num_captions_N),
      ends_N - index.num_captions_N, index.image_id_N))

  def fetch(caption_B):
    picture_B = tf.gather(picture_C, caption_B)
    columns = tf.io.parse_example(
        tf.ensure_shape(read(picture_B), caption_B.shape),
        records.image_text_spec(kind))
    captions, first_B = records.parse_words(columns)
    shift_B = first_B - tf.gather(first_N, picture_B)
    return Rows(captions, shift_B, tuple(
        batch_lib.Regions(
            tf.gather(image_id_N, picture_B), *records.parse_regions(
                columns, num_regions, kind.feature_dim, picture=picture))
        for picture in range(kind.num_pictures)), tf.cast(tf.gather(
            columns['label'].values, caption_B + shift_B), tf.int32)
                if kind.has_labels else None)

  return fetch


def read_pictures(index: index_lib.Pictures, kind: records.Kind,
                  ) -> Callable[[np.ndarray], tuple[
                      list[str], batch_lib.Regions]]:
  """Returns what reads names and regions of the pictures of some numbers.

  Args:
    kind: what its records hold.
  """
  num_regions = int(index.num_regions_N.max())
  read = tf.function(_make_read(index, _AT_ONCE), input_signature=[
      tf.TensorSpec([None], tf.int64)])
  spec = records.regions_spec(kind.storage) | {
      'image_id': tf.io.FixedLenFeature([], tf.string)}

  def fetch(number_B):
    columns = tf.io.parse_example(read(number_B), spec)
    regions = records.parse_regions(columns, num_regions, kind.feature_dim)
    return [name.decode() for name in columns['image_id'].numpy()], (
        batch_lib.Regions(index.image_id_N[number_B],
                          *(tensor.numpy() for tensor in regions)))

  return fetch


def text_rows(indices: Sequence[index_lib.Texts], languages: Sequence[str], *,
              width: int, parallel: int) -> Texts:
  """Returns the rows of text of each dataset in each of the languages.

  Args:
    indices: of the datasets.
    languages: those that are read.
    width: a row is a sentence, where 0; else each stream's sentences are one
      text, `</s>` behind each, cut into rows of so many ids but for the last.
    parallel: records read at the same time.
  """
  index = index_lib.join(indices)
  dataset_N = np.repeat(range(len(indices)), [len(x.file_N) for x in indices])
  found = {(number, language): np.nonzero(
      (dataset_N == number) & (np.array(index.languages) == language)[
          index.language_C])[0]
           for number in range(len(indices)) for language in languages}
  found = {key: record_M for key, record_M in found.items() if len(record_M)}
  record_M = np.concatenate(list(found.values()))
  # What rows are counted in: ids, or sentences.
  units_M = (index.num_ids_C if width else index.num_texts_N)[record_M]
  ends_M = np.cumsum(units_M, dtype=np.int64)
  ends_S = ends_M[np.cumsum([len(rows) for rows in found.values()]) - 1]
  starts_S = np.append(0, ends_S[:-1])
  read = _make_read(index, parallel)
  ends_M, ends_S, starts_S, starts_M, record_M = map(tf.constant, (
      ends_M, ends_S, starts_S, ends_M - units_M, record_M))

  def fetch(stream_B, row_B):
    first_B = tf.gather(starts_S, stream_B) + row_B * (width or 1)
    last_B = tf.minimum(first_B + (width or 1), tf.gather(ends_S, stream_B))
    head_B = tf.searchsorted(ends_M, first_B, side='right', out_type=tf.int64)
    tail_B = tf.searchsorted(ends_M, last_B, side='left', out_type=tf.int64)
    places = tf.ragged.range(head_B, tail_B + 1)
    ids = tf.io.parse_example(
        read(tf.gather(record_M, places.values)), {'ids': tf.io.RaggedFeature(
            tf.int64, row_splits_dtype=tf.int64)})['ids']
    begin_B = tf.gather(ids.row_splits, places.row_splits[:-1])
    place_B = first_B - tf.gather(starts_M, head_B)
    taken = (
        tf.ragged.range(begin_B + place_B, begin_B + place_B + last_B - first_B)
        if width else _find_sentences(ids.values, begin_B, place_B))
    return taken.with_values(
        tf.cast(tf.gather(ids.values, taken.values), tf.int32))

  lengths_S = (ends_S - starts_S).numpy()
  return Texts(list(-(-lengths_S // (width or 1))),
               [language for _, language in found], fetch)


def _find_sentences(ids_T: tf.Tensor, begin_B: tf.Tensor,
                    number_B: tf.Tensor) -> tf.RaggedTensor:
  """Returns where the ids of the n-th sentences after these places are."""
  ends_E = tf.where(ids_T == tokenizer.EOS)[:, 0]
  # The place before the first sentence ends none, but it begins one.
  begins_E = tf.concat([[0], ends_E + 1], axis=0)
  number_B += tf.searchsorted(ends_E, begin_B, out_type=tf.int64)
  return tf.ragged.range(
      tf.gather(begins_E, number_B), tf.gather(ends_E, number_B))


def _make_read(index: Any, parallel: int) -> Callable[[tf.Tensor], tf.Tensor]:
  """Returns what reads records of these numbers: int64 [B] → string [B]."""
  # A buffer makes a remote record two requests, one to find its place; a local
  # one it copies.
  is_buffered = any('://' in path for path in index.paths)
  # Tensors are captured once; arrays would be copied into every graph.
  paths, file_N, offset_N, bytes_N = map(tf.constant, (
      index.paths, index.file_N, index.offset_N, index.bytes_N))

  def read_one(number):
    num_bytes = tf.gather(bytes_N, number)
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.gather(paths, tf.gather(file_N, number))[tf.newaxis],
        compression_type='',
        buffer_size=num_bytes if is_buffered else np.int64(0),
        byte_offsets=tf.gather(offset_N, number)[tf.newaxis])
    return tf.data.experimental.from_variant(
        variant, tf.TensorSpec([], tf.string)).take(1).get_single_element()

  def read(number_B):
    return tf.data.Dataset.from_tensor_slices(number_B).map(
        read_one, num_parallel_calls=parallel).batch(
            tf.size(number_B, tf.int64)).get_single_element()

  return read
