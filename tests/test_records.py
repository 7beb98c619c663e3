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


def _write_and_read(features, record):
  return features.deserialize_example(features.serialize_example(record))


def test_a_picture_record_survives():
  features = records.image_text_features(4)
  caption = {'language': 'de', 'text': 'ein Bär', 'keys': [-5, 2**62]}
  for part in records.PARTS:
    caption[f'{part}_ids'] = [7, 250_000]
    caption[f'{part}_lengths'] = [2, 0]
  record = {
      'image_id': 'a/b', 'group': 'bär', 'height': 3, 'width': 4,
      'boxes': np.ones((2, 4), np.float32),
      'features': np.full((2, 4), 0.1, np.float16),
      'class_ids': np.array([0, 1000], np.int32), 'captions': [caption] * 3}
  read = _write_and_read(features, record)
  assert read['features'].dtype == tf.float16
  np.testing.assert_array_equal(read['features'], record['features'])
  np.testing.assert_array_equal(read['boxes'], record['boxes'])
  np.testing.assert_array_equal(read['class_ids'], [0, 1000])
  assert read['group'].numpy().decode() == 'bär'
  assert read['captions']['keys'].to_list() == [[-5, 2**62]] * 3
  assert read['captions']['suffix_ids'].to_list() == [[7, 250_000]] * 3


def test_a_text_record_survives():
  features = records.text_features()
  record = {'text_id': 'en/1', 'language': 'en', 'text': 'Red.', 'ids': [4, 5]}
  read = _write_and_read(features, record)
  assert read['ids'].numpy().tolist() == [4, 5]
  assert read['text'].numpy() == b'Red.'
