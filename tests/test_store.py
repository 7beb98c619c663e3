"""Properties of records read into arrays, and of rows made of them."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import store
from tests import toy


@pytest.mark.parametrize('length', [0, 1, 5, 6, 7, 30])
def test_rows_begin_and_end(length):
  ids = tf.ragged.constant([list(range(10, 10 + length)), [7]],
                           dtype=tf.int32, row_splits_dtype=tf.int64)
  token_ids_BL, text_mask_BL = store.pad_ids(ids, 8)
  kept = list(range(10, 10 + length))[:6]
  assert token_ids_BL.shape == text_mask_BL.shape == (2, 8)
  assert token_ids_BL.dtype == tf.int32
  np.testing.assert_array_equal(
      token_ids_BL, [[0] + kept + [2] + [1] * (6 - len(kept)),
                     [0, 7, 2, 1, 1, 1, 1, 1]])
  np.testing.assert_array_equal(
      text_mask_BL, token_ids_BL.numpy() != 1)


@pytest.mark.parametrize('dataset', ['pairs', 'packed'])
def test_arrays_are_what_tfds_reads(dataset):
  pictures, captions = store.read_image_text(toy.data_dir(), dataset, 'train')
  rows = list(tfds.as_numpy(store.open_builder(
      toy.data_dir(), dataset).as_dataset(
          split='train', shuffle_files=False)))
  assert pictures.image_ids == [row['image_id'].decode() for row in rows]
  for i, row in enumerate(rows):
    features_RF = row['features']
    if dataset == 'packed':
      features_RF = (features_RF * row['scales'][:, np.newaxis]).astype(
          np.float16)
    np.testing.assert_array_equal(pictures.features_NRF[i], features_RF)
    np.testing.assert_array_equal(pictures.class_ids_NR[i], row['class_ids'])
    (found,) = np.nonzero(captions.picture_C == i)
    for name in ('language', 'text'):
      assert [getattr(captions, f'{name}s')[j] for j in found] == [
          text.decode() for text in row['captions'][name]]
    np.testing.assert_array_equal(np.concatenate([
        captions.ids.values[slice(*captions.ids.splits[
            captions.word_splits[j:j + 2]])] for j in found]),
                                  row['captions']['word_ids'].flat_values)


def test_words_are_the_captions_own():
  _, captions = store.read_image_text(toy.data_dir(), 'pairs', 'train')
  rows = tf.constant([5, 0, 5], tf.int64)
  words = store.gather_words(captions, rows, max_words=100)
  found = [toy.decode(ids) for ids in store.unswitched(words).to_list()]
  assert found == [captions.texts[i].replace(' ', '') for i in (5, 0, 5)]
  short = store.gather_words(captions, rows, max_words=1)
  assert np.diff(short.row_splits).tolist() == [1, 1, 1]


def test_pictures_of_a_group_share_their_image_id():
  pictures, _ = store.read_image_text(toy.data_dir(), 'pairs', 'train')
  by_group = {}
  for group, image_id in zip(pictures.groups, pictures.image_id_N,
                             strict=True):
    by_group.setdefault(group, set()).add(int(image_id))
  assert all(len(found) == 1 for found in by_group.values())
  assert len(set.union(*by_group.values())) == len(by_group) == 30
  assert pictures.image_id_N.min() >= 0


def test_boxes_are_shares_of_the_picture():
  pictures, _ = store.read_image_text(toy.data_dir(), 'pairs', 'train')
  np.testing.assert_allclose(pictures.boxes_NRG[0, 0], [0, 0, .5, .5, .25])
  assert pictures.features_NRF.dtype == np.float16


def test_datasets_with_fewer_regions_are_padded():
  parts = [store.read_image_text(toy.data_dir(), name, 'train')[0]
           for name in ('pairs', 'english')]
  joined = store.join_pictures(('pairs', 'english'), parts)
  assert joined.features_NRF.shape == (80, 4, toy.FEATURE_DIM)
  assert joined.mask_NR[-1].tolist() == [True, True, False, False]
  assert joined.class_ids_NR[-1].tolist() == [1, 2, 0, 0]
  assert not joined.features_NRF[-1, 2:].any()
