"""Properties of the record schemas and of phrase keys."""

import numpy as np
import tensorflow as tf

from input_pipeline import records


def _keys(seed, shape):
  limits = np.iinfo(np.int64)
  return np.random.default_rng(seed).integers(
      limits.min, limits.max, shape, np.int64)


def test_mixed_keys_are_the_same_in_numpy_and_tensorflow():
  first, second = _keys(0, (50,)), _keys(1, (50,))
  expected = records.mix_keys(first, second)
  assert expected.dtype == np.int64
  found = records.mix_keys(tf.constant(first), tf.constant(second))
  np.testing.assert_array_equal(found.numpy(), expected)
  in_graph = tf.function(records.mix_keys)(
      tf.constant(first), tf.constant(second))
  np.testing.assert_array_equal(in_graph.numpy(), expected)


def test_mixed_keys_broadcast():
  first, second = _keys(0, (4, 1)), _keys(1, (3,))
  expected = records.mix_keys(first, second)
  assert expected.shape == (4, 3)
  assert expected[2, 1] == records.mix_keys(first[2, 0], second[1])
  found = records.mix_keys(tf.constant(first), second)
  np.testing.assert_array_equal(found.numpy(), expected)
  with_scalar = records.mix_keys(tf.constant(second), np.int64(-1))
  np.testing.assert_array_equal(
      with_scalar.numpy(), records.mix_keys(second, np.int64(-1)))


def test_mixed_keys_depend_on_the_order_and_do_not_collide():
  keys = _keys(0, (300,))
  pairs = records.mix_keys(keys[:, None], keys[None])
  assert len(np.unique(pairs)) == pairs.size
  small = np.arange(100)
  assert len(np.unique(records.mix_keys(small[:, None], small[None]))) == 10_000


def test_a_phrase_differs_from_its_words():
  a, b, c = _keys(3, (3,))
  left = records.mix_keys(records.mix_keys(a, b), c)
  assert left != records.mix_keys(a, records.mix_keys(b, c))
  assert left not in (a, b, c, records.mix_keys(a, b))
