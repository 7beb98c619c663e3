"""Mixes streams by p ∝ n^α, as a pure function of the row's number.

Nothing is remembered between rows: which stream gives row 0, 1, 2 … of a task,
and which of its items, follows from the seed and the row's number alone. So a
run resumes exactly from its step number, hosts share one order of rows without
talking, and no shuffle buffer has to be filled or saved.

A *deck* holds every stream in its share of slots. It is dealt again and again,
each time in another order; a stream's items are dealt in epochs, each time in
another order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import records

# Slots for each stream on average: shares are exact to about 1 / 64 of that.
_SLOTS_PER_STREAM = 64
_ROUNDS = 4
# Fewer bits leave too few permutations to be dealt fairly.
_MIN_BITS = 6


class Deck(NamedTuple):
  """Slots of the streams; S streams, D slots.

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


def make_deck(sizes: Sequence[int], alpha: float) -> Deck:
  """Returns a deck in which a stream of n items has a share ∝ n^alpha.

  Args:
    sizes: number of items of each stream, each at least 1.
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
    deck: the streams.
    rows_B: int64 [B], numbers of rows, from 0.
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
  # Outside of the loop, which otherwise makes them again each time.
  rounds = [(tf.bitwise.bitwise_and(key_B, mask_B), _odd(key_B))
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


def _odd(key_B: tf.Tensor) -> tf.Tensor:
  """Returns an odd factor from the key's upper bits."""
  return tf.bitwise.bitwise_or(
      tf.bitwise.right_shift(key_B, tf.constant(16, tf.int64)),
      tf.constant(1, tf.int64))
