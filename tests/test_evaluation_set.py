"""Properties of retrieval sets."""

import unicodedata

import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline import records
from input_pipeline import store
from input_pipeline import tokenizer as tokenizer_lib
from m3p_jax.model import config as model_config
from m3p_jax.search import collection
from m3p_jax.search import index as index_lib
from tests import toy

# The same caption but for its writing, in pairs of pictures; 'ㄪ' and '𐎀' are
# both unknown to the tokenizer, and 'đ' is not 'd'.
_WRITTEN = ('một con mèo đen', unicodedata.normalize('NFD', 'một con mèo đen'),
            'một  con mèo\u200bđen', 'một con mèo den',
            'chữ \U00010380 mèo', unicodedata.normalize('NFD',
                                                        'chữ \U00010380 mèo'),
            'chữ \U00010381 mèo', 'Ｔａｘｉ', 'Taxi')
_ALIKE = [{0, 1, 2}, {3}, {4, 5}, {6}, {7, 8}]


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


def test_captions_that_the_tokenizer_reads_alike_are_one_answer(
    tokenizer, tmp_path):
  encoder = tokenizer_lib.CaptionEncoder(tokenizer)
  toy.write(tmp_path / 'vi', records.image_text_features(toy.FEATURE_DIM), {
      'test': [{
          'image_id': f'{i}.png', 'group': f'{i}', 'height': 9, 'width': 9,
          'boxes': np.zeros((1, 4), np.float32), 'class_ids': [0],
          'features': np.ones((1, toy.FEATURE_DIM), np.float16),
          'captions': encoder.encode([('vi', text)])}
               for i, text in enumerate(_WRITTEN)]})
  found = evaluation_set.load(tmp_path, 'vi', 'test', ('vi',), 16)
  rows, order = found.captions['vi'], [int(name[0]) for name in found.image_ids]

  def written(pictures):
    return {order[i] for i in pictures}

  assert sorted(map(written, rows.groups), key=min) == _ALIKE
  # Each is shown as it was first written.
  assert rows.texts == [_WRITTEN[order[min(one)]] for one in rows.groups]
  assert [k for k, _ in rows.written_M2] == [
      k for i in range(9) for k, one in enumerate(rows.groups) if i in one]
  (tmp_path / 'vi' / 'manifest.json').write_text('{"counts": {"test": 9}}')
  pictures = collection.Records(tmp_path, 'vi', 'test').pictures()
  captions = index_lib.Index(pictures, np.zeros((9, 1))).captions['vi']
  assert sorted(map(written, captions.values()), key=min) == _ALIKE


def test_pictures_of_a_group_are_never_each_others_negatives():
  found = evaluation_set.load(toy.data_dir(), 'pairs', 'test', ('en',), 16)
  ids_B, groups_B = found.regions.image_id_B, np.array(found.groups)
  # By these numbers the objectives tell who is wrong for whom.
  assert len(set(groups_B)) < len(groups_B)
  np.testing.assert_array_equal(
      ids_B[:, np.newaxis] == ids_B, groups_B[:, np.newaxis] == groups_B)


def test_limit_keeps_the_first_pictures_and_their_captions():
  found = evaluation_set.load(toy.data_dir(), 'pairs', 'test', ('en',), 16,
                              limit=3)
  assert len(found.image_ids) == len(found.regions.mask_BR) == 3
  assert set.union(*found.captions['en'].groups) == {0, 1, 2}


def test_nothing_is_cut_unless_asked_and_then_it_is_counted():
  def model(positions, **changes):
    return model_config.ModelConfig(max_positions=positions, **changes)

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
    np.testing.assert_array_equal(one.text_mask_NL, one.token_ids_NL != 1)
    assert one.token_ids_NL.shape[1] % 8 == 0
    assert longest + 2 <= one.token_ids_NL.shape[1] < longest + 10
  # A language has the same rows alone.
  np.testing.assert_array_equal(
      load(('de',), 0).captions['de'].token_ids_NL,
      whole.captions['de'].token_ids_NL)
  # Four regions go before the caption.
  for cut in (load(('all',), 12),
              load(('all',), 0, text_room=model(16).text_room)):
    for name, one in cut.captions.items():
      assert one.token_ids_NL.shape[1] == 12
      assert one.num_cut == sum(len(text) > 10 for text in ids[name]) > 0
  # Text that begins at a place of its own leaves less room.
  late = load(('de',), 0, text_room=model(16, text_position=8).text_room)
  assert late.captions['de'].token_ids_NL.shape[1] == 8
  with pytest.raises(errors.UserError, match='has 2 positions for text'):
    load(('de',), 0, text_room=model(6).text_room)
  with pytest.raises(errors.UserError, match=r'4 regions; allowed: 3, where'):
    load(('de',), 0, text_room=model(16, text_position=3).text_room)


@pytest.mark.parametrize('arguments, word', [
    (('pears', 'test', ('en',)), "'pairs'"),
    (('pairs', 'tests', ('en',)), "'test'"),
    (('pairs', 'test', ('en', 'dde')), "'de'")])
def test_mistakes_name_the_nearest(arguments, word):
  with pytest.raises(errors.UserError, match=word):
    evaluation_set.load(toy.data_dir(), *arguments, 16)
