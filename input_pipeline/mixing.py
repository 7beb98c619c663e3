"""Mixes streams by p ∝ n^α, as a pure function of the row's number.

Each (dataset, language) is a stream of its own. The items of a text stream are
its rows; that of an image-text stream is a picture that has captions in the
language, and each visit draws one of them.

Nothing is remembered between rows: which stream gives row 0, 1, 2 … of a task,
and which of its items, follows from the seed and the row's number alone. So a
run resumes exactly from its step number, hosts share one order of rows without
talking, and no shuffle buffer has to be filled or saved.

A *deck* holds every stream in its share of slots. It is dealt again and again,
each time in another order; a stream's items are dealt in epochs, each time in
another order.
Letters: B rows, S streams, D slots, C captions.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from input_pipeline import errors
from input_pipeline import languages as languages_lib
from input_pipeline import records
from input_pipeline import store

# Slots for each stream on average: shares are exact to about 1 / 64 of that.
_SLOTS_PER_STREAM = 64
_ROUNDS = 4
# Fewer bits leave too few permutations to be dealt fairly.
_MIN_BITS = 6


class Items(NamedTuple):
  """The items of all (dataset, language) streams, stream by stream.

  Attributes:
    sizes: items of each stream.
    starts_S: int64 [S], first item of each stream.
    languages_S: int32 [S], index of each stream's language.
    order: the captions of each item.
  """
  sizes: list[int]
  starts_S: Any
  languages_S: Any
  order: store.Ragged


class Deck(NamedTuple):
  """Slots of the streams.

  Attributes:
    stream_D: int64 [D], which stream a slot belongs to.
    occurrence_D: int64 [D], how many slots before it are that stream's.
    slots_S: int64 [S], the streams' numbers of slots.
    sizes_S: int64 [S], the streams' numbers of items.
  """
  stream_D: np.ndarray
  occurrence_D: np.ndarray
  slots_S: np.ndarray
  sizes_S: np.ndarray


def choose_languages(stream: str, asked: Sequence[str], known: Sequence[str],
                     datasets: Sequence[str],
                     there: Sequence[Collection[str]]) -> list[str]:
  """Returns the languages that a stream reads.

  Args:
    stream: its name, for messages, as are those of `datasets`.
    asked: codes; ('all',) = those of the datasets that are known.
    known: languages of the model.
    there: languages of each dataset.

  Raises:
    UserError: a dataset has none of the languages, or a language no dataset.
  """
  found = set().union(*there)
  if tuple(asked) == (languages_lib.ALL,):
    asked = [name for name in known if name in found]
    if unknown := sorted(found - set(known)):
      logging.warning(
          'not in data.languages, and left out of %s: %s',
          ', '.join(datasets), ', '.join(unknown))
  for language in asked:
    errors.check_choice(
        f'language in data.{stream}.languages', language, known)
  for dataset, has in zip(datasets, there, strict=True):
    if not set(asked) & set(has):
      raise errors.UserError(
          f'dataset {dataset!r} has nothing in {", ".join(asked or known)}; it '
          f'has {", ".join(sorted(has))}')
  if missing := [name for name in asked if name not in found]:
    raise errors.UserError(
        f'no dataset of {", ".join(datasets)} has text in '
        f'{", ".join(missing)}; they have {", ".join(sorted(found))}')
  return list(asked)


def make_items(languages: Sequence[str], all_languages: Sequence[str],
               rows: Sequence[tuple[np.ndarray, np.ndarray]], *,
               shots: int = 0) -> Items:
  """Returns the items of the (dataset, language) streams.

  Args:
    languages: languages to read.
    all_languages: where their indices come from.
    rows: for each dataset its rows' languages [C], and numbers [C] that are
      equal where rows are choices for one item.
    shots: items of each dataset in each language; 0 = all.
  """
  sizes, language_ids, orders, counts, offset = [], [], [], [], 0
  for row_languages, group_C in rows:
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
  splits = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
  return Items(
      sizes=sizes, starts_S=np.cumsum(sizes) - np.array(sizes),
      languages_S=np.array(language_ids, np.int32),
      order=store.Ragged(np.concatenate(orders), splits.astype(np.int64)))


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


class Sources(NamedTuple):
  """Of each caption, those of its item that it may be a translation of.

  Attributes:
    order: int64, captions.
    first_C: int64 [C], where a caption's begin in `order`.
    count_C: int64 [C], how many they are; 0 = there is none.
  """
  order: Any
  first_C: Any
  count_C: Any


def find_sources(rows: Sequence[tuple[np.ndarray, np.ndarray]],
                 languages: Collection[str]) -> Sources:
  """Returns the sources of all captions: those in another of the languages.

  Args:
    rows: as of `make_items`, the numbers of a dataset's items rising.
    languages: that sources are in.
  """
  orders, firsts, counts, offset, length = [], [], [], 0, 0
  for row_languages, group_C in rows:
    first_C, count_C = np.zeros((2, len(group_C)), np.int64)
    for language in set(row_languages):
      is_C = row_languages == language
      (order,) = np.nonzero(np.isin(
          row_languages, [name for name in languages if name != language]))
      first_C[is_C], last_C = (
          np.searchsorted(group_C[order], group_C[is_C], side)
          for side in ('left', 'right'))
      count_C[is_C] = last_C - first_C[is_C]
      first_C[is_C] += length
      orders.append(order + offset)
      length += len(order)
    firsts.append(first_C)
    counts.append(count_C)
    offset += len(group_C)
  return Sources(*map(np.concatenate, (orders, firsts, counts)))


def draw_source(sources: Sources, caption_B: tf.Tensor, rows_B: tf.Tensor,
                seed: tf.Tensor) -> tf.Tensor:
  """Returns a source of each caption int64 [B], of those that have one."""
  # −2 keeps this hash apart from that of `draw`.
  hash_B = records.mix_keys(records.mix_keys(seed, np.int64(-2)), rows_B)
  return tf.gather(sources.order, tf.gather(
      sources.first_C, caption_B) + tf.math.floormod(
          hash_B, tf.gather(sources.count_C, caption_B)))


def draw(items: Items, deck: Deck, rows_B: tf.Tensor, seed: tf.Tensor,
         ) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the caption of each row int64 [B], and its language."""
  stream_B, item_B = deal(deck, rows_B, seed)
  item_B += tf.gather(items.starts_S, stream_B)
  first_B = tf.gather(items.order.splits, item_B)
  count_B = tf.gather(items.order.splits, item_B + 1) - first_B
  # −1 keeps this hash apart from those of `deal`.
  hash_B = records.mix_keys(records.mix_keys(seed, np.int64(-1)), rows_B)
  place_B = first_B + tf.math.floormod(hash_B, count_B)
  return (tf.gather(items.order.values, place_B),
          tf.gather(items.languages_S, stream_B))


def make_deck(sizes: Sequence[int], alpha: float) -> Deck:
  """Returns a deck in which a stream of n ≥ 1 items has a share ∝ n^alpha.

  alpha: 1 = every item equally often, 0 = every stream equally often.
  """
  sizes_S = np.array(sizes, np.int64)
  shares_S = sizes_S / sizes_S.sum()
  shares_S = shares_S**alpha / np.sum(shares_S**alpha)
  # One slot at least: a stream in the config is never lost to rounding.
  slots_S = np.maximum(1, np.round(
      shares_S * len(sizes_S) * _SLOTS_PER_STREAM)).astype(np.int64)
  return Deck(
      stream_D=np.repeat(np.arange(len(sizes_S)), slots_S),
      occurrence_D=np.concatenate([np.arange(n) for n in slots_S]),
      slots_S=slots_S, sizes_S=sizes_S)


def deal(deck: Deck, rows_B: tf.Tensor, seed: tf.Tensor,
         ) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns (stream_B, item_B), int64: what the rows with these numbers hold.

  Args:
    rows_B: int64 [B], from 0.
    seed: int64, scalar.
  """
  num_slots = len(deck.stream_D)
  slot_B = permute(
      rows_B % num_slots, tf.fill(tf.shape(rows_B), np.int64(num_slots)),
      records.mix_keys(seed, rows_B // num_slots))
  stream_B = tf.gather(deck.stream_D, slot_B)
  count_B = (rows_B // num_slots * tf.gather(deck.slots_S, stream_B) +
             tf.gather(deck.occurrence_D, slot_B))
  size_B = tf.gather(deck.sizes_S, stream_B)
  # −1 − stream keeps these seeds apart from the decks' own.
  seed_B = records.mix_keys(
      records.mix_keys(seed, -1 - stream_B), count_B // size_B)
  return stream_B, permute(count_B % size_B, size_B, seed_B)


def permute(index_B: tf.Tensor, size_B: tf.Tensor, seed_B: tf.Tensor,
            ) -> tf.Tensor:
  """Returns int64 [B]: where a random permutation of each row's own takes it.

  Every step below is a bijection of the numbers of k bits, few that hold
  `size`; a number that leaves [0, size) is sent on until it returns
  (cycle walking). TF's own `index_shuffle` takes no vectors.

  Args:
    index_B: int64 [B], in [0, size).
    size_B: int64 [B], at least 1.
    seed_B: int64 [B]; rows with equal seed and size share one permutation.
  """
  index_B, size_B, seed_B = (
      tf.cast(x, tf.int64) for x in (index_B, size_B, seed_B))
  # How many powers of two are smaller.
  bits_B = tf.searchsorted(
      2 ** np.arange(62, dtype=np.int64), size_B, out_type=tf.int64)
  bits_B = tf.maximum(bits_B, _MIN_BITS)
  mask_B = tf.bitwise.left_shift(tf.ones_like(bits_B), bits_B) - 1
  shift_B = (bits_B + 1) // 2
  keys = [records.mix_keys(seed_B, np.int64(i + 1)) for i in range(_ROUNDS)]
  # Outside of the loop, which otherwise makes them again each time. The upper
  # bits of a key make an odd factor.
  rounds = [(tf.bitwise.bitwise_and(key_B, mask_B),
             tf.bitwise.bitwise_or(tf.bitwise.right_shift(
                 key_B, tf.constant(16, tf.int64)), tf.constant(1, tf.int64)))
            for key_B in keys]

  def scramble(x_B):
    for key_B, factor_B in rounds:
      x_B = tf.bitwise.bitwise_xor(x_B, key_B)
      x_B = tf.bitwise.bitwise_and(x_B * factor_B, mask_B)
      x_B = tf.bitwise.bitwise_xor(
          x_B, tf.bitwise.right_shift(x_B, shift_B))
    return x_B

  return tf.while_loop(
      lambda x_B: tf.reduce_any(x_B >= size_B),
      lambda x_B: [tf.where(x_B >= size_B, scramble(x_B), x_B)],
      [scramble(index_B)])[0]
