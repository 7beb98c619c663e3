"""Reads prepared records into flat NumPy arrays.

Strings, nested lists and TFDS end here: what follows gathers rows of these
arrays by number.
Letters: N pictures, R regions, F region feature, G=5 box, C captions or texts,
W words.
"""

import os
from typing import Any, NamedTuple
import unicodedata

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import records
from input_pipeline import tokenizer
from input_pipeline.record_files import prepared
from input_pipeline.record_files import record_index

_READ_RECORDS = 64
_CAPTION_FEATURES = (
    'language', 'text', 'keys', 'word_ids', 'word_lengths', 'prefix_ids',
    'prefix_lengths', 'suffix_ids', 'suffix_lengths')
# Strings of a sentence: for people, and half of the memory.
_UNUSED = {'text', 'text_id'}


class Ragged(NamedTuple):
  """Rows of different length: row i is `values[splits[i]:splits[i + 1]]`."""
  values: np.ndarray
  splits: np.ndarray


class Pictures(NamedTuple):
  """The pictures of a split.

  Attributes:
    image_ids: their names.
    groups: names of the groups that share right answers.
    image_id_N: int32 [N], hash of the group.
    features_NRF: float16 [N, R, F], un-normalised, 0 at padding.
    boxes_NRG: float32 [N, R, 5]: x1/w, y1/h, x2/w, y2/h, area/(w·h).
    class_ids_NR: int32 [N, R], 0 at padding.
    mask_NR: bool [N, R], False at padding.
  """
  image_ids: list[str]
  groups: list[str]
  image_id_N: np.ndarray
  features_NRF: np.ndarray
  boxes_NRG: np.ndarray
  class_ids_NR: np.ndarray
  mask_NR: np.ndarray


class Captions(NamedTuple):
  """The captions of a split, picture by picture.

  Attributes:
    picture_C: int64 [C], the caption's picture.
    languages: the captions' languages.
    texts: the captions as written.
    word_splits: int64 [C + 1], the captions' first words.
    keys_W: int64 [W], see `captions.word_key`.
    ids: W rows of token ids, as tokenised in the sentence.
    prefix_ids: W rows, the words' leading punctuation.
    suffix_ids: W rows, the words' trailing punctuation.
  """
  picture_C: np.ndarray
  languages: list[str]
  texts: list[str]
  word_splits: np.ndarray
  keys_W: np.ndarray
  ids: Ragged
  prefix_ids: Ragged
  suffix_ids: Ragged

  def form(self, row: int) -> tuple[bytes, str]:
    """Returns what a caption is compared by: what its tokenizer made of it.

    Equal ids are equal texts in the tokenizer's own form, whichever accents,
    widths and spaces they were written with. Unknown characters share an id:
    where there are any, the text counts as well.
    """
    first, last = self.ids.splits[self.word_splits[row:row + 2]]
    ids = self.ids.values[first:last]
    unknown = self.texts[row] if (ids == tokenizer.UNK).any() else ''
    return ids.tobytes(), unicodedata.normalize('NFKC', unknown)


class CaptionWords(NamedTuple):
  """The part of `Captions` that rows are made of; of arrays or tensors."""
  word_splits: Any
  keys_W: Any
  ids: Ragged
  prefix_ids: Ragged
  suffix_ids: Ragged


class Texts(NamedTuple):
  """The texts of a split: languages and C rows of token ids."""
  languages: list[str]
  ids: Ragged


def read_image_text(data_dir: str | os.PathLike[str], dataset: str,
                    split: str) -> tuple[Pictures, Captions]:
  """Returns the pictures and captions of one split, in the records' order.

  Raises:
    UserError: the dataset is not prepared, or has no such split.
  """
  columns = _read(data_dir, dataset, split)
  captions = columns.pop('captions')
  num_captions = captions['language'].row_lengths().numpy()
  words = {name: captions[f'{name}_lengths'].flat_values.numpy()
           for name in ('word', 'prefix', 'suffix')}
  return _pictures(columns), Captions(
      picture_C=np.repeat(np.arange(len(num_captions)), num_captions),
      languages=_strings(captions['language'].flat_values),
      texts=_strings(captions['text'].flat_values),
      word_splits=captions['keys'].values.row_splits.numpy(),
      keys_W=captions['keys'].flat_values.numpy(),
      ids=_ragged(captions['word_ids'], words['word']),
      prefix_ids=_ragged(captions['prefix_ids'], words['prefix']),
      suffix_ids=_ragged(captions['suffix_ids'], words['suffix']))


def read_texts(data_dir: str | os.PathLike[str], dataset: str,
               split: str) -> Texts:
  """Returns the texts of one split, in the records' order.

  Raises:
    UserError: the dataset is not prepared, or has no such split.
  """
  columns = _read(data_dir, dataset, split)
  ids = columns['ids']
  return Texts(languages=_strings(columns['language']),
               ids=Ragged(ids.values.numpy(), ids.row_splits.numpy()))


def _read(data_dir, dataset: str, split: str) -> dict[str, Any]:
  """Returns all records of a split, each feature one ragged tensor."""
  builder = prepared.open_builder(data_dir, dataset, split)
  _check_memory(dataset, builder.info.splits[split].num_bytes)
  wanted: dict[str, Any] = {
      name: True for name in builder.info.features if name not in _UNUSED}
  if 'captions' in wanted:
    wanted['captions'] = dict.fromkeys(_CAPTION_FEATURES, True)
  with console.hold_library_logs():
    # TFDS would cache by itself, and keep a second copy in memory; and it would
    # read several files in turn.
    stored = builder.as_dataset(
        split=split, shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(wanted),
        read_config=tfds.ReadConfig(
            try_autocache=False, interleave_cycle_length=1))
  batches = list(stored.ragged_batch(_READ_RECORDS))
  if not batches:
    raise errors.UserError(f'split {split!r} of {dataset!r} has no records')
  return tf.nest.map_structure(
      lambda *parts: tf.concat(parts, axis=0), *batches)


def _check_memory(dataset: str, num_bytes: int) -> None:
  """Raises UserError where a split cannot lie in this machine's memory."""
  has = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  # Read in pieces, then joined: for a moment everything is there twice.
  if 2 * num_bytes > has:
    raise errors.UserError(
        f'{dataset} needs {2 * num_bytes / 1e9:.0f} GB of memory, where its '
        f'records are kept; this machine has {has / 1e9:.0f} GB. Use another '
        'machine, or prepare less of it (--limit); to train on pictures that '
        'do not fit, lower data.image_text.memory_bytes')


def _pictures(columns: dict[str, Any]) -> Pictures:
  """Returns the pictures with their regions padded to the longest."""
  groups = _strings(columns['group'])
  num_N = columns['features'].row_lengths().numpy()
  num_regions = int(num_N.max())
  height_N1, width_N1 = (
      columns[name].numpy().astype(np.float32)[:, np.newaxis]
      for name in ('height', 'width'))
  boxes = columns['boxes'].to_tensor(
      shape=(None, num_regions, 4)).numpy().astype(np.float32)
  x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
  x1, x2 = x1 / width_N1, x2 / width_N1
  y1, y2 = y1 / height_N1, y2 / height_N1
  return Pictures(
      image_ids=_strings(columns['image_id']), groups=groups,
      image_id_N=np.array(
          [record_index.group_id(group) for group in groups], np.int32),
      features_NRF=_features(columns, num_regions),
      boxes_NRG=np.stack(
          [x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], -1).astype(np.float32),
      class_ids_NR=columns['class_ids'].to_tensor(
          shape=(None, num_regions)).numpy().astype(np.int32),
      mask_NR=np.arange(num_regions) < num_N[:, np.newaxis])


def _features(columns: dict[str, Any], num_regions: int) -> np.ndarray:
  """Returns float16 [N, R, F], padded with zeros."""
  features_NRF = columns['features'].to_tensor(
      shape=(None, num_regions, None)).numpy()
  if 'scales' not in columns:
    return features_NRF
  scales_NR = columns['scales'].to_tensor(shape=(None, num_regions)).numpy()
  # One picture after the other: in float32 all would take twice the memory.
  return np.stack([
      records.unpack_features({'features': features_RF, 'scales': scales_R})
      for features_RF, scales_R
      in zip(features_NRF, scales_NR, strict=True)])


def _ragged(column, lengths_W: np.ndarray) -> Ragged:
  return Ragged(column.flat_values.numpy().astype(np.int32),
                np.concatenate([[0], np.cumsum(lengths_W, dtype=np.int64)]))


def _strings(column: tf.Tensor) -> list[str]:
  return [text.decode() for text in column.numpy()]
