"""Prepared records as flat NumPy arrays: read, joined, gathered by number.

Strings, nested lists and TFDS end here: what follows gathers rows of these
arrays, in pure TF ops.
Letters: B rows, L text length, N pictures, R regions, F region feature, G=5
box, C captions or texts, W words.
"""

from collections.abc import Sequence
import difflib
import json
import os
import pathlib
from typing import Any, NamedTuple
import unicodedata

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import index as index_lib
from input_pipeline import phrases
from input_pipeline import records
from input_pipeline import tokenizer
from m3p_jax import batch as batch_lib

_READ_RECORDS = 64
# What is read of a caption.
_CAPTION_FEATURES = ('language', 'text', 'keys', *(
    f'{part}_{kind}' for part in records.PARTS for kind in ('ids', 'lengths')))
# Strings of a sentence: for people, and half of the memory.
_UNUSED = {'text', 'text_id'}


class Ragged(NamedTuple):
  """Rows of different length: row i is `values[splits[i]:splits[i + 1]]`."""
  values: Any
  splits: Any


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


def open_builder(data_dir: str | os.PathLike[str], dataset: str,
                 split: str = '') -> tfds.core.DatasetBuilder:
  """Returns TFDS's reader of a prepared dataset.

  Args:
    split: one that it must have; '' = none in particular.

  Raises:
    UserError: the dataset is not prepared, or has no such split.
  """
  folder = pathlib.Path(data_dir)
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
  path = pathlib.Path(data_dir) / dataset / 'manifest.json'
  manifest = json.loads(path.read_text())
  return manifest.get('left_out', {}).get(split, 0)


def read_image_text(data_dir: str | os.PathLike[str], dataset: str,
                    split: str) -> tuple[Pictures, Captions]:
  """Returns the pictures and captions of one split, in the records' order.

  Raises:
    UserError: see `open_builder`; or the split does not fit into memory.
  """
  columns = _read(data_dir, dataset, split)
  captions = columns.pop('captions')
  num_captions = captions['language'].row_lengths().numpy()
  ids, prefix_ids, suffix_ids = (
      Ragged(captions[f'{part}_ids'].flat_values.numpy().astype(np.int32),
             _starts(captions[f'{part}_lengths'].flat_values.numpy()))
      for part in records.PARTS)
  return _pictures(columns), Captions(
      picture_C=np.repeat(np.arange(len(num_captions)), num_captions),
      languages=_strings(captions['language'].flat_values),
      texts=_strings(captions['text'].flat_values),
      word_splits=captions['keys'].values.row_splits.numpy(),
      keys_W=captions['keys'].flat_values.numpy(),
      ids=ids, prefix_ids=prefix_ids, suffix_ids=suffix_ids)


def read_texts(data_dir: str | os.PathLike[str], dataset: str,
               split: str) -> Texts:
  """Returns the texts of one split; see `read_image_text`."""
  columns = _read(data_dir, dataset, split)
  ids = columns['ids']
  return Texts(languages=_strings(columns['language']),
               ids=Ragged(ids.values.numpy(), ids.row_splits.numpy()))


def _read(data_dir, dataset: str, split: str) -> dict[str, Any]:
  """Returns all records of a split, each feature one ragged tensor."""
  builder = open_builder(data_dir, dataset, split)
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
          [index_lib.group_id(group) for group in groups], np.int32),
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


def _starts(lengths_W: np.ndarray) -> np.ndarray:
  return np.concatenate([[0], np.cumsum(lengths_W, dtype=np.int64)])


def _strings(column: tf.Tensor) -> list[str]:
  return [text.decode() for text in column.numpy()]


def join_rows(parts: Sequence[Ragged]) -> Ragged:
  """Returns the rows of all parts, one part after the other."""
  offsets = np.cumsum([0] + [len(part.values) for part in parts])
  return Ragged(
      np.concatenate([part.values for part in parts]),
      np.concatenate([[0]] + [part.splits[1:] + offset for part, offset
                              in zip(parts, offsets[:-1], strict=True)]))


def full_rows(texts: Texts, width: int) -> Texts:
  """Returns each language's texts as one, `</s>` between, cut into rows.

  All rows have `width` ids but each language's last: no padding, and every
  token of a long text is read.
  """
  ends = texts.ids.splits[1:]
  values = np.insert(texts.ids.values, ends, tokenizer.EOS)
  lengths = np.diff(texts.ids.splits) + 1
  names, language_C = np.unique(texts.languages, return_inverse=True)
  language_of_id = np.repeat(language_C, lengths)
  languages, parts = [], []
  for number, name in enumerate(names):
    flat = values[language_of_id == number]
    splits = np.append(np.arange(0, len(flat), width), len(flat))
    languages += [str(name)] * (len(splits) - 1)
    parts.append(Ragged(flat, splits))
  return Texts(languages, join_rows(parts))


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


def gather_words(captions: Captions | CaptionWords, caption_B: tf.Tensor, *,
                 max_words: int) -> phrases.Words:
  """Returns the words of captions of these numbers, `max_words` of each."""
  starts = tf.gather(captions.word_splits, caption_B)
  ends = tf.gather(captions.word_splits, caption_B + 1)
  places = tf.ragged.range(starts, tf.minimum(ends, starts + max_words))
  return phrases.Words(
      row_splits=places.row_splits,
      keys_W=tf.gather(captions.keys_W, places.values),
      ids=gather_rows(captions.ids, places.values),
      prefix_ids=gather_rows(captions.prefix_ids, places.values),
      suffix_ids=gather_rows(captions.suffix_ids, places.values))


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
