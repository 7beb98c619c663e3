"""Properties of retrieval sets."""

import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline.record_files import store
from tests import toy


def test_captions_are_distinct_and_their_groups_are_right():
  found = evaluation_set.load(toy.data_dir(), 'pairs', 'test', ('all',), 30)
  pictures, captions = store.read_image_text(toy.data_dir(), 'pairs', 'test')
  assert sorted(found.captions) == sorted(toy.LANGUAGES)
  for language, rows in found.captions.items():
    assert len(set(rows.texts)) == len(rows.texts) == len(rows.groups)
    for text, right in zip(rows.texts, rows.groups, strict=True):
      groups = {pictures.groups[p] for t, p, name in zip(
          captions.texts, captions.picture_C, captions.languages, strict=True)
                if t == text and name == language}
      assert right == {i for i, group in enumerate(found.groups)
                       if group in groups}


def test_pictures_of_a_group_are_never_each_others_negatives():
  found = evaluation_set.load(toy.data_dir(), 'pairs', 'test', ('en',), 16)
  ids_B, groups_B = found.regions.image_id_B, np.array(found.groups)
  # By these numbers the objectives tell who is wrong for whom.
  assert len(set(groups_B)) < len(groups_B)
  np.testing.assert_array_equal(
      ids_B[:, np.newaxis] == ids_B, groups_B[:, np.newaxis] == groups_B)


def test_rows_are_the_captions():
  found = evaluation_set.load(toy.data_dir(), 'pairs', 'test', ('de',), 64)
  rows = found.captions['de']
  assert [toy.decode(ids) for ids in rows.token_ids_NL] == [
      text.replace(' ', '') for text in rows.texts]
  np.testing.assert_array_equal(rows.text_mask_NL, rows.token_ids_NL != 1)
  assert isinstance(found.regions.features_BRF, np.ndarray)
  assert len(found.image_ids) == len(found.regions.image_id_B) == 9


def test_limit_keeps_the_first_pictures_and_their_captions():
  found = evaluation_set.load(toy.data_dir(), 'pairs', 'test', ('en',), 16,
                              limit=3)
  assert len(found.image_ids) == len(found.regions.mask_BR) == 3
  assert set.union(*found.captions['en'].groups) == {0, 1, 2}


def test_nothing_is_cut_unless_asked_and_then_it_is_counted():
  def load(languages, max_length, **kwargs):
    return evaluation_set.load(
        toy.data_dir(), 'pairs', 'test', languages, max_length, **kwargs)

  whole = load(('all',), 0)
  ids = {name: [text.replace(' ', '') for text in one.texts]
         for name, one in whole.captions.items()}
  longest = max(len(text) for texts in ids.values() for text in texts)
  for name, one in whole.captions.items():
    assert one.num_cut == 0
    assert [toy.decode(row) for row in one.token_ids_NL] == ids[name]
    assert one.token_ids_NL.shape[1] % 8 == 0
    assert longest + 2 <= one.token_ids_NL.shape[1] < longest + 10
  # A language has the same rows alone.
  np.testing.assert_array_equal(
      load(('de',), 0).captions['de'].token_ids_NL,
      whole.captions['de'].token_ids_NL)
  # Four regions go before the caption.
  for cut in (load(('all',), 12), load(('all',), 0, max_positions=16)):
    for name, one in cut.captions.items():
      assert one.token_ids_NL.shape[1] == 12
      assert one.num_cut == sum(len(text) > 10 for text in ids[name]) > 0
  with pytest.raises(errors.UserError, match='4 regions, and the model 6'):
    load(('de',), 0, max_positions=6)


@pytest.mark.parametrize('arguments, word', [
    (('pears', 'test', ('en',)), "'pairs'"),
    (('pairs', 'tests', ('en',)), "'test'"),
    (('pairs', 'test', ('en', 'dde')), "'de'")])
def test_mistakes_name_the_nearest(arguments, word):
  with pytest.raises(errors.UserError, match=word):
    evaluation_set.load(toy.data_dir(), *arguments, 16)
