"""Prepared records as flat NumPy arrays: read, joined, gathered by number.

Strings, nested lists and TFDS end here: what follows gathers rows of these
arrays, in pure TF ops.
Letters: B rows, L text length, N pictures, R regions, F region feature, G=5
box, C captions or texts, W words.
"""

from collections.abc import Callable, Mapping, Sequence
import difflib
import json
import os
from typing import Any, NamedTuple
import unicodedata

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import index as index_lib
from input_pipeline import paths
from input_pipeline import records
from input_pipeline import tokenizer
from m3p_jax import batch as batch_lib

_READ_RECORDS = 64

Ragged = records.Ragged


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


class Words(NamedTuple):
  """The words of B captions.

  Attributes:
    row_splits: int64 [B + 1], the captions' first words.
    keys_W: int64 [W], key of the word's core; 0 where it has none, and in
      captions that are in no dictionary's source language.
    ids: RaggedTensor int32 [W, pieces], the word as tokenised in its caption.
    prefix_ids: RaggedTensor int32 [W, pieces], its leading punctuation.
    suffix_ids: RaggedTensor int32 [W, pieces], its trailing punctuation.
  """
  row_splits: tf.Tensor
  keys_W: tf.Tensor
  ids: tf.RaggedTensor
  prefix_ids: tf.RaggedTensor
  suffix_ids: tf.RaggedTensor


class Captions(NamedTuple):
  """The captions of a split, picture by picture.

  Attributes:
    picture_C: int64 [C], the caption's picture.
    languages: the captions' languages.
    texts: the captions as written.
    word_splits: int64 [C + 1], the captions' first words.
    keys_W: int64 [W], see `tokenizer.word_key`.
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


def open_builder(data_dir: str | os.PathLike[str], dataset: str,
                 split: str = '') -> tfds.core.DatasetBuilder:
  """Returns TFDS's reader of a prepared dataset.

  Args:
    split: one that it must have; '' = none in particular.

  Raises:
    UserError: the dataset is not prepared, or has no such split.
  """
  folder = paths.of(data_dir)
  there = sorted(p.parent.name for p in folder.glob('*/manifest.json'))
  if dataset not in there:
    near = difflib.get_close_matches(dataset, there, n=1)
    hint = f' (did you mean {near[0]!r}?)' if near else ''
    raise errors.UserError(
        f'dataset {dataset!r} is not prepared in {folder}{hint}; there: '
        f'{", ".join(there) or "none"}. Run: python -m input_pipeline.'
        f'prepare --dataset={dataset} --data_dir={folder}')
  described = sorted((folder / dataset).glob('*/*/dataset_info.json'))
  if not described:
    raise errors.UserError(f'{folder / dataset} holds no complete TFDS dataset')
  with console.hold_library_logs():
    builder = tfds.builder_from_directory(described[-1].parent)
  if split:
    errors.check_choice(f'split of {dataset}', split, builder.info.splits)
  return builder


def left_out(data_dir: str | os.PathLike[str], dataset: str,
             split: str) -> int:
  """Returns how many items of a split preparation left out, as far as known."""
  path = paths.of(data_dir) / dataset / 'manifest.json'
  manifest = json.loads(path.read_text())
  return manifest.get('left_out', {}).get(split, 0)


def open_index(builder: tfds.core.DatasetBuilder, split: str, *,
               column: str = 'captions') -> Any:
  """Returns the index of a split.

  Args:
    column: what its records must have: 'captions', or 'ids' of text.

  Raises:
    UserError: they do not have it, or the files are not as they were.
  """
  features = builder.info.features
  if column not in features:
    raise errors.UserError(
        f'{builder.name} has no '
        f'{"pictures" if column == "captions" else "sentences"}')
  if 'text' in features:
    raise errors.UserError(
        f'{builder.data_dir} holds text as version 1 stored it. Run the '
        f'command that prepared it again: python -m input_pipeline.prepare '
        f'--dataset={builder.name}')
  return index_lib.read(
      paths.of(str(builder.data_dir)) / index_lib.file_name(split),
      builder.info.splits[split].filepaths)


def read_image_text(data_dir: str | os.PathLike[str], dataset: str,
                    split: str) -> tuple[Pictures, Captions]:
  """Returns the pictures and captions of one split, in the records' order.

  Raises:
    UserError: see `open_builder`, `open_index`; or it does not fit into memory.
  """
  builder = open_builder(data_dir, dataset, split)
  _check_memory(dataset, builder.info.splits[split].num_bytes)
  index = open_index(builder, split)
  kind = records.kind_of(builder.info.features)
  regions: list[list[np.ndarray]] = []

  def look(columns):
    regions.append([tensor.numpy() for tensor in records.parse_regions(
        columns, int(index.num_regions_N.max()), kind.feature_dim)])

  image_ids, groups, captions = _read(
      index, records.regions_spec(kind.storage), look)
  return Pictures(image_ids, groups, index.image_id_N,
                  *map(np.concatenate, zip(*regions, strict=True))), captions


def read_captions(index: index_lib.Pictures) -> tuple[list[str], Captions]:
  """Returns the names of a split's pictures, and their captions."""
  image_ids, _, captions = _read(index, {}, lambda columns: None)
  return image_ids, captions


def _read(index: index_lib.Pictures, spec: Mapping[str, Any],
          look: Callable[[Mapping[str, Any]], None],
          ) -> tuple[list[str], list[str], Captions]:
  """Returns the pictures' names, their groups and captions.

  Args:
    spec: of what `look` takes of each batch of records.
  """
  spec = {**spec, **records.words_spec(), **dict.fromkeys(
      ['image_id', 'group'], tf.io.FixedLenFeature([], tf.string)),
          'texts': tf.io.RaggedFeature(tf.string, value_key='captions/text')}
  image_ids, groups, texts, words = [], [], [], []
  try:
    for batch in tf.data.TFRecordDataset(index.paths).batch(_READ_RECORDS):
      columns = tf.io.parse_example(batch, spec)
      image_ids += _strings(columns['image_id'])
      groups += _strings(columns['group'])
      texts += _strings(columns['texts'].flat_values)
      words.append(tf.nest.map_structure(
          lambda tensor: tensor.numpy(), records.parse_words(columns)[0]))
      look(columns)
  except tf.errors.DataLossError as error:
    raise errors.UserError(
        f'{index.paths[0]} or a file beside it is damaged: {error.message}. '
        'Prepare the dataset again, into an empty --data_dir') from error
  keys = join_rows([Ragged(part.keys_W, part.word_splits) for part in words])
  return image_ids, groups, Captions(
      picture_C=np.repeat(np.arange(len(image_ids)), index.num_captions_N),
      languages=[index.languages[number] for number in index.language_C],
      texts=texts, word_splits=keys.splits, keys_W=keys.values,
      ids=join_rows([part.ids for part in words]),
      prefix_ids=join_rows([part.prefix_ids for part in words]),
      suffix_ids=join_rows([part.suffix_ids for part in words]))


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


def _strings(column: tf.Tensor) -> list[str]:
  return [text.decode() for text in column.numpy()]


def join_rows(parts: Sequence[Ragged]) -> Ragged:
  """Returns the rows of all parts, one part after the other."""
  offsets = np.cumsum([0] + [len(part.values) for part in parts])
  return Ragged(
      np.concatenate([part.values for part in parts]),
      np.concatenate([[0]] + [part.splits[1:] + offset for part, offset
                              in zip(parts, offsets[:-1], strict=True)]))


def join_pictures(datasets: Sequence[str],
                  parts: Sequence[Pictures]) -> Pictures:
  """Returns the pictures of all parts, regions padded to the longest.

  Raises:
    UserError: region features of different sizes.
  """
  sizes = [part.features_NRF.shape[-1] for part in parts]
  if len(set(sizes)) > 1:
    raise errors.UserError(
        'datasets with region features of different sizes cannot be mixed: '
        + ', '.join(f'{name} has {size}' for name, size
                    in zip(datasets, sizes, strict=True)))
  longest = max(part.mask_NR.shape[1] for part in parts)

  def join(*arrays):
    if isinstance(arrays[0], list):
      return sum(arrays, [])
    return np.concatenate([_pad_regions(array, longest) for array in arrays])

  return Pictures(*map(join, *parts))


def _pad_regions(array: np.ndarray, longest: int) -> np.ndarray:
  """Returns an array [N, R, …] with zeros up to `longest` regions."""
  if array.ndim < 2 or array.shape[1] == longest:
    return array
  return np.pad(array, [(0, 0), (0, longest - array.shape[1])] +
                [(0, 0)] * (array.ndim - 2))


def join_captions(parts: Sequence[Captions],
                  num_pictures: Sequence[int]) -> Captions:
  """Returns the captions of all parts; their pictures are numbered through."""
  offsets = np.cumsum([0, *num_pictures])
  words = join_rows([Ragged(part.keys_W, part.word_splits) for part in parts])
  return Captions(
      picture_C=np.concatenate([part.picture_C + offset for part, offset
                                in zip(parts, offsets[:-1], strict=True)]),
      languages=sum((part.languages for part in parts), []),
      texts=sum((part.texts for part in parts), []),
      word_splits=words.splits, keys_W=words.values,
      ids=join_rows([part.ids for part in parts]),
      prefix_ids=join_rows([part.prefix_ids for part in parts]),
      suffix_ids=join_rows([part.suffix_ids for part in parts]))


def gather_rows(rows: Ragged, indices: tf.Tensor) -> tf.RaggedTensor:
  """Returns the rows of these numbers, one after the other."""
  starts = tf.gather(rows.splits, indices)
  places = tf.ragged.range(starts, tf.gather(rows.splits, indices + 1))
  return places.with_values(tf.gather(rows.values, places.values))


def gather_words(captions: Captions | records.CaptionWords,
                 caption_B: tf.Tensor, *, max_words: int) -> Words:
  """Returns the words of captions of these numbers, `max_words` of each."""
  starts = tf.gather(captions.word_splits, caption_B)
  ends = tf.gather(captions.word_splits, caption_B + 1)
  places = tf.ragged.range(starts, tf.minimum(ends, starts + max_words))
  return Words(
      row_splits=places.row_splits,
      keys_W=tf.gather(captions.keys_W, places.values),
      ids=gather_rows(captions.ids, places.values),
      prefix_ids=gather_rows(captions.prefix_ids, places.values),
      suffix_ids=gather_rows(captions.suffix_ids, places.values))


def unswitched(words: Words) -> tf.RaggedTensor:
  """Returns the captions' own token ids [B, ids]."""
  splits = tf.gather(words.ids.row_splits, words.row_splits)
  return tf.RaggedTensor.from_row_splits(words.ids.flat_values, splits,
                                         validate=False)


def gather_regions(pictures: Pictures, picture_B: tf.Tensor,
                   ) -> batch_lib.Regions:
  """Returns the regions of the pictures of these numbers."""
  return batch_lib.Regions(*(
      tf.gather(array, picture_B)
      for array in (pictures.image_id_N, pictures.features_NRF,
                    pictures.boxes_NRG, pictures.class_ids_NR,
                    pictures.mask_NR)))


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
