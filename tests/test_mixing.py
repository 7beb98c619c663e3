"""Properties of mixing: shares, epochs, and that nothing is remembered."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import mixing


def _deal(deck, rows, seed=3):
  stream_B, item_B = mixing.deal(
      deck, tf.constant(rows, tf.int64), tf.constant(seed, tf.int64))
  return stream_B.numpy(), item_B.numpy()


@pytest.mark.parametrize('size', [1, 2, 3, 5, 16, 17, 1000])
def test_permute_is_a_bijection(size):
  index_B = tf.range(size, dtype=tf.int64)
  order_B = mixing.permute(index_B, tf.fill([size], np.int64(size)),
                           tf.fill([size], np.int64(99))).numpy()
  assert sorted(order_B) == list(range(size))


def test_permutations_of_different_seeds_differ():
  n, seeds = 13, 3000
  index_B = tf.tile(tf.range(n, dtype=tf.int64), [seeds])
  seed_B = tf.repeat(tf.range(seeds, dtype=tf.int64), n)
  order = mixing.permute(
      index_B, tf.fill([n * seeds], np.int64(n)), seed_B).numpy()
  counts = np.stack([np.bincount(row, minlength=n)
                     for row in order.reshape(seeds, n).T])
  # Each index goes everywhere about equally often: 231 ± 6 deviations of 15.
  np.testing.assert_allclose(counts, seeds / n, atol=6 * 15)


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0])
def test_shares_follow_sizes_to_the_power_of_alpha(alpha):
  sizes = np.array([1000, 100, 10])
  stream_B, _ = _deal(mixing.make_deck(sizes, alpha), range(20_000))
  wanted = sizes**alpha / np.sum(sizes**alpha)
  shares = np.bincount(stream_B, minlength=3) / len(stream_B)
  np.testing.assert_allclose(shares, wanted, atol=0.01)


def test_items_are_dealt_in_epochs():
  deck = mixing.make_deck([7, 40], 1.0)
  decks = 30
  stream_B, item_B = _deal(deck, range(decks * len(deck.stream_D)))
  for stream, size in enumerate((7, 40)):
    counts = np.bincount(item_B[stream_B == stream], minlength=size)
    # Whole decks hold whole epochs and a part of the last one.
    assert set(counts) <= {decks * deck.slots_S[stream] // size,
                           decks * deck.slots_S[stream] // size + 1}


def test_rows_do_not_depend_on_how_they_are_asked_for():
  deck = mixing.make_deck([30, 5], 0.7)
  whole = np.stack(_deal(deck, range(100)))
  parts = np.concatenate(
      [np.stack(_deal(deck, range(i, i + 10))) for i in range(0, 100, 10)],
      axis=1)
  np.testing.assert_array_equal(whole, parts)


def test_seeds_give_other_orders():
  deck = mixing.make_deck([300, 50], 0.7)
  assert (_deal(deck, range(50), seed=1)[1] !=
          _deal(deck, range(50), seed=2)[1]).any()


def test_a_tiny_stream_is_never_lost():
  stream_B, _ = _deal(mixing.make_deck([1, 10_000_000], 1.0), range(200))
  assert set(stream_B) == {0, 1}
