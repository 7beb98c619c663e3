"""Makes the batches of the two streams: text alone, and pictures with text.

Each (dataset, language) is a stream of its own; `mixing` says how often each
gives a row. The item of an image-text stream is a picture that has captions in
the language, and each visit draws one of them.
Letters: B rows, P (picture, language) pairs, C captions.
"""

from collections.abc import Callable, Sequence
import os
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from input_pipeline import captions as captions_lib
from input_pipeline import code_switch
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import examples
from input_pipeline import mixing
from input_pipeline import phrases
from input_pipeline import records
from input_pipeline.record_files import fetch
from input_pipeline.record_files import join
from input_pipeline.record_files import store
from m3p_jax import batch as batch_lib

# (numbers of the rows int64 [B], seed int64 [2], whether words are switched) →
# the batch. The first number of the seed is the task's own.
MakeBatch = Callable[[tf.Tensor, tf.Tensor, bool], batch_lib.Batch]


class Switch(NamedTuple):
  """Code-switching: from which dictionary, and how much."""
  dictionary: dictionaries.Dictionary
  settings: code_switch.Settings


class _Items(NamedTuple):
  """The items of all (dataset, language) streams, stream by stream.

  Attributes:
    sizes: items of each stream.
    starts_S: int64 [S], first item of each stream.
    languages_S: int32 [S], index of each stream's language.
    order: the rows (captions or texts) of each item.
  """
  sizes: list[int]
  starts_S: np.ndarray
  languages_S: np.ndarray
  order: store.Ragged


def text_maker(data_dir: str | os.PathLike[str], split: str,
               all_languages: Sequence[str], *, datasets: Sequence[str],
               languages: Sequence[str], alpha: float, max_length: int,
               concatenate: bool = False) -> MakeBatch:
  """Returns what makes batches of text.

  Args:
    data_dir: folder of prepared datasets.
    split: 'train', 'validation' or 'test'.
    all_languages: a row's language is an index in them.
    datasets: names of text datasets.
    languages: languages to read, all of them in `all_languages`.
    alpha: languages and datasets are drawn with p ∝ n^alpha.
    max_length: ids in a row.
    concatenate: rows are cut from the texts of a language, one after the
      other; else each text is a row, cut or padded.

  Raises:
    UserError: a dataset is not prepared or has none of the languages, or a
      language is in no dataset.
  """
  parts = [store.read_texts(data_dir, name, split) for name in datasets]
  if concatenate:
    parts = [join.full_rows(part, max_length - 2) for part in parts]
  items = _make_items(
      datasets, languages, all_languages,
      [(part.languages, np.arange(len(part.languages))) for part in parts])
  ids = join.rows([part.ids for part in parts])
  is_read_C = np.isin(
      np.concatenate([part.languages for part in parts]), languages)
  if split == 'train':
    _say_cut('text', np.diff(ids.splits)[is_read_C], max_length)
  deck = mixing.make_deck(items.sizes, alpha)
  items, ids = fetch.to_tensors(items), fetch.to_tensors(ids)

  def make(rows_B: tf.Tensor, seed: tf.Tensor,
           switches: bool) -> batch_lib.Batch:
    del switches  # Sentences never are.
    row_B, language_B = _draw(items, deck, rows_B, seed[0])
    token_ids_BL, text_mask_BL = examples.pad_ids(
        examples.gather_rows(ids, row_B), max_length)
    return batch_lib.Batch(token_ids_BL, text_mask_BL, language_B)

  return tf.function(make, autograph=False)


def image_text_maker(data_dir: str | os.PathLike[str], split: str,
                     all_languages: Sequence[str], *, datasets: Sequence[str],
                     languages: Sequence[str], alpha: float, max_length: int,
                     switch: Switch | None, memory_bytes: int,
                     shots: int = 0) -> MakeBatch:
  """Returns what makes batches of pictures with captions.

  Args: as `text_maker`, and
    switch: how English captions are code-switched; None = not at all.
    memory_bytes: records larger than this are not kept in memory.
    shots: pictures of each dataset in each language; 0 = all.

  Raises:
    UserError: as `text_maker`, or pictures whose features do not fit together.
  """
  source = fetch.find(data_dir, datasets, split, memory_bytes=memory_bytes)
  if split == 'train' and source.num_ids_C is not None:
    is_read_C = np.isin(np.concatenate(source.languages), languages)
    _say_cut('image_text', source.num_ids_C[is_read_C], max_length)
  items = _make_items(
      datasets, languages, all_languages,
      list(zip(source.languages, source.pictures, strict=True)), shots=shots)
  is_source_C = tf.constant(
      np.concatenate(source.languages) == captions_lib.SOURCE_LANGUAGE)
  items = fetch.to_tensors(items)
  if switch:
    switch = switch._replace(dictionary=fetch.to_tensors(switch.dictionary))
  deck = mixing.make_deck(items.sizes, alpha)

  def make(rows_B: tf.Tensor, seed: tf.Tensor,
           switches: bool) -> batch_lib.Batch:
    caption_B, language_B = _draw(items, deck, rows_B, seed[0])
    captions, place_B, regions = source.fetch(caption_B)
    words = examples.gather_words(captions, place_B, max_words=max_length - 2)
    if switch and switches:
      ids = code_switch.switch(
          words, switch.dictionary, seed=seed, settings=switch.settings,
          is_source_B=tf.gather(is_source_C, caption_B))
    else:
      ids = phrases.unswitched(words)
    token_ids_BL, text_mask_BL = examples.pad_ids(ids, max_length)
    return batch_lib.Batch(token_ids_BL, text_mask_BL, language_B, regions)

  # Tasks with batches of one size share the traced function.
  return tf.function(make, autograph=False)


def _say_cut(stream: str, num_ids_C: np.ndarray, max_length: int) -> None:
  """Tells how many texts are cut, before any is code-switched."""
  if count := int((num_ids_C > max_length - 2).sum()):
    logging.warning(
        '%d of %d texts have more than data.%s.max_length = %d ids: what is '
        'beyond is not trained on', count, len(num_ids_C), stream, max_length)


def _draw(items: _Items, deck: mixing.Deck, rows_B: tf.Tensor, seed: tf.Tensor,
          ) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the caption or text of each row int64 [B], and its language."""
  stream_B, item_B = mixing.deal(deck, rows_B, seed)
  item_B += tf.gather(items.starts_S, stream_B)
  first_B = tf.gather(items.order.splits, item_B)
  count_B = tf.gather(items.order.splits, item_B + 1) - first_B
  # −1 keeps this hash apart from those of `deal`.
  hash_B = records.mix_keys(records.mix_keys(seed, np.int64(-1)), rows_B)
  place_B = first_B + tf.math.floormod(hash_B, count_B)
  return (tf.gather(items.order.values, place_B),
          tf.gather(items.languages_S, stream_B))


def _is_shot(group_C: np.ndarray, shots: int) -> np.ndarray:
  """Returns which rows belong to the `shots` items that few-shot training has.

  Drawn once and for all: the same for every seed of training, and for all
  languages where they have the same items; fewer are among those of more.
  """
  if not len(group_C):
    return np.zeros(0, bool)
  place_C = np.random.default_rng(0).permutation(2 ** 20)[group_C % 2 ** 20]
  items, first = np.unique(group_C, return_index=True)
  chosen = items[np.argsort(place_C[first], kind='stable')[:shots]]
  return np.isin(group_C, chosen)


def _make_items(datasets, languages, all_languages, rows, *,
                shots: int = 0) -> _Items:
  """Returns the items of the (dataset, language) streams.

  Args:
    datasets: names, for messages.
    languages: languages to read.
    all_languages: where their indices come from.
    rows: for each dataset its rows' languages, and numbers that are equal
      where rows are choices for one item.
    shots: items of each dataset in each language; 0 = all.
  """
  sizes, language_ids, orders, counts, offset = [], [], [], [], 0
  for dataset, (row_languages, group_C) in zip(datasets, rows, strict=True):
    row_languages = np.asarray(row_languages)
    has = sorted(np.unique(row_languages))
    if not set(languages) & set(has):
      raise errors.UserError(
          f'dataset {dataset!r} has nothing in {", ".join(languages)}; it has '
          f'{", ".join(has)}')
    for language in languages:
      (order,) = np.nonzero(row_languages == language)
      if shots:
        order = order[_is_shot(group_C[order], shots)]
      if len(order):
        _, count = np.unique(group_C[order], return_counts=True)
        orders.append(order + offset)
        counts.append(count)
        sizes.append(len(count))
        language_ids.append(all_languages.index(language))
    offset += len(row_languages)
  found = {all_languages[i] for i in language_ids}
  if missing := [name for name in languages if name not in found]:
    there = sorted(set().union(*(names for names, _ in rows)))
    raise errors.UserError(
        f'no dataset of {", ".join(datasets)} has text in '
        f'{", ".join(missing)}; they have {", ".join(there)}')
  splits = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
  return _Items(
      sizes=sizes, starts_S=np.cumsum(sizes) - np.array(sizes),
      languages_S=np.array(language_ids, np.int32),
      order=store.Ragged(np.concatenate(orders), splits.astype(np.int64)))

