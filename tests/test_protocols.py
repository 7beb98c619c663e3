"""The protocol `tux-paint` on four pictures and three captions."""

import pathlib

import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import evaluation_set
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import ranking

# Pictures 0 and 1 share a caption; picture 3 has none in this language.
GROUPS = [{0, 1}, {2}]


def test_queries_and_right_answers():
  trial = protocols.tux_paint(4, GROUPS)
  np.testing.assert_array_equal(
      trial.is_right_CI, [[1, 1, 0, 0], [0, 0, 1, 0]])
  np.testing.assert_array_equal(trial.image_queries_Q, [0, 1, 2])


def test_pictures_without_a_caption_are_candidates_but_no_queries():
  trial = protocols.tux_paint(4, GROUPS)
  scores_CI = np.array([[.1, .2, .0, .9], [.0, .1, .8, .9]])
  cell = ranking.measure(trial, scores_CI)
  # The picture without a caption comes first for both captions.
  assert cell['text_to_image']['r1'] == 0
  assert cell['text_to_image']['median_rank'] == 2
  assert cell['image_to_text']['r1'] == 100
  assert cell['image_to_text']['num_queries'] == 3
  assert (cell['num_images'], cell['num_captions']) == (4, 2)


def test_mean_recall_is_the_mean_of_six():
  cell = ranking.measure(protocols.tux_paint(4, GROUPS), np.eye(2, 4))
  recalls = [cell[direction][f'r{k}'] for k in (1, 5, 10)
             for direction in ('image_to_text', 'text_to_image')]
  assert cell['mean_recall'] == pytest.approx(np.mean(recalls))


def test_chance_knows_groups_and_gallery():
  cell = ranking.measure(protocols.tux_paint(4, GROUPS), np.zeros((2, 4)))
  # Captions: 2 of 4 and 1 of 4 pictures are right.
  assert cell['text_to_image']['chance_r1'] == pytest.approx(37.5)
  assert cell['image_to_text']['chance_r1'] == pytest.approx(50)
  assert cell['chance'] == pytest.approx((37.5 + 50 + 4 * 100) / 6)


def test_each_direction_can_have_its_own_scores():
  trial = protocols.tux_paint(4, GROUPS)
  right = trial.is_right_CI.astype(float)
  cell = ranking.measure(trial, right, -right)
  assert cell['text_to_image']['r1'] == 100
  assert cell['image_to_text']['r1'] == 0


def test_unknown_protocol_is_a_users_mistake():
  with pytest.raises(errors.UserError, match=r'karpathy.*tux-paint'):
    protocols.get('karpathy')


def test_a_caption_without_a_picture_is_refused():
  with pytest.raises(ValueError, match='caption 1 has no picture'):
    protocols.tux_paint(4, [{0}, set()])


def _captions(written, groups=None):
  """Returns captions from (caption, picture) in the records' order."""
  written_M2 = np.array(written)
  count = written_M2[:, 0].max() + 1
  return evaluation_set.CaptionSet(
      [f'text {c}' for c in range(count)], np.zeros((count, 3), np.int32),
      np.ones((count, 3), bool),
      groups or [set(written_M2[written_M2[:, 0] == c, 1].tolist())
                 for c in range(count)], written_M2)


def _measure(name, language, num_images, captions, scores_CI):
  trials = protocols.trials(name, language, num_images, captions)
  return ranking.average([
      ranking.measure(trial, trial.cut(scores_CI)) for trial in trials])


def test_padding_to_five_distorts_as_in_the_release():
  # One caption a picture, as in Multi30K's fr and cs.
  rng = np.random.default_rng(0)
  captions = _captions([(i, i) for i in range(60)])
  scores_CI = rng.normal(size=(60, 60)) + 2.5 * np.eye(60)
  padded = _measure('m3p-pad5', 'fr', 60, captions, scores_CI)
  plain = _measure('multi30k-task1', 'fr', 60, captions, scores_CI)
  assert (padded['num_captions'], plain['num_captions']) == (300, 60)
  # The top five of the padded list are one caption, the top ten are two.
  ranks = ranking.best_ranks(scores_CI.T, np.eye(60, dtype=bool))
  image_to_text = padded['image_to_text']
  assert 0 < image_to_text['r1'] < 100
  assert image_to_text['r1'] == image_to_text['r5'] == (
      plain['image_to_text']['r1'])
  assert image_to_text['r10'] == pytest.approx(100 * (ranks <= 2).mean())
  assert image_to_text['r5'] < plain['image_to_text']['r5']
  # Asking everything five times changes no share of it.
  for k in (1, 5, 10):
    assert padded['text_to_image'][f'r{k}'] == pytest.approx(
        plain['text_to_image'][f'r{k}'])


def test_padding_repeats_captions_in_turn():
  captions = _captions([(0, 0), (1, 0), (2, 1)])
  (trial,) = protocols.trials('m3p-pad5', 'cs', 2, captions)
  assert trial.captions.tolist() == [0, 1, 0, 1, 0, 2, 2, 2, 2, 2]
  assert trial.is_right_CI.sum(0).tolist() == [5, 5]


def test_captions_as_written_stand_for_themselves():
  # Both pictures have the same text first, and five captions at least.
  captions = _captions(
      [(c, 0) for c in range(6)] + [(0, 1)] + [(c, 1) for c in range(6, 10)])
  (trial,) = protocols.trials('coco-5k', 'en', 2, captions)
  assert trial.captions.tolist() == [0, 1, 2, 3, 4, 0, 6, 7, 8, 9]
  # Only the own picture is right, though the text is the same.
  np.testing.assert_array_equal(
      trial.is_right_CI, np.repeat(np.eye(2, dtype=bool), 5, axis=0))
  (shared,) = protocols.trials('wit', 'en', 2, captions)
  assert shared.is_right_CI[shared.captions == 0].all()


def test_folds_are_galleries_of_their_own():
  captions = _captions([(c, c // 5) for c in range(50)])
  rng = np.random.default_rng(1)
  scores_CI = rng.normal(size=(50, 10))
  trials = protocols.trials('coco-5x1k', 'en', 10, captions)
  assert [trial.pictures.tolist() for trial in trials] == [
      [i, i + 1] for i in range(0, 10, 2)]
  cells = [ranking.measure(trial, scores_CI[i * 10:i * 10 + 10,
                                              i * 2:i * 2 + 2])
           for i, trial in enumerate(trials)]
  mean = _measure('coco-5x1k', 'en', 10, captions, scores_CI)
  assert mean['mean_recall'] == pytest.approx(
      np.mean([cell['mean_recall'] for cell in cells]))
  assert (mean['num_images'], mean['num_captions']) == (2, 10)
  with pytest.raises(errors.UserError, match='5 equal folds, but there are 7'):
    protocols.trials('coco-5x1k', 'en', 7, captions)


def test_wit_searches_the_pictures_of_its_language():
  captions = _captions([(0, 1), (1, 4), (2, 4)])
  (trial,) = protocols.trials('wit', 'da', 6, captions)
  assert trial.pictures.tolist() == [1, 4]
  assert trial.image_queries_Q.tolist() == [0, 1]


def test_only_the_published_pictures_are_used():
  captions = _captions([(c, c) for c in range(1_003)])
  (trial,) = protocols.trials('xtd10', 'ko', 1_003, captions)
  assert trial.is_right_CI.shape == (1_000, 1_000)
  assert protocols.get('xtd10').deviations(1_003, 0) == []
  assert protocols.get('xtd10').deviations(12, 0) == [
      '12 pictures instead of 1000']


@pytest.mark.parametrize('name, language, message', [
    ('multi30k-task2x5', 'en', r'needs 5 captions .* picture 1 has 2 in en'),
    ('multi30k-task1', 'en', r'needs 1 caption of .* picture 0 has 5 in en'),
    ('multi30k-task2x5', 'fr', "'fr'.*There are: en, de"),
    ('coco-cn-1k', 'en', 'zh_CN')])
def test_a_set_that_a_protocol_does_not_mean_is_refused(
    name, language, message):
  captions = _captions([(c, 0) for c in range(5)] + [(5, 1), (6, 1)])
  with pytest.raises(errors.UserError, match=message):
    protocols.trials(name, language, 2, captions)


def test_every_protocol_is_documented():
  text = (pathlib.Path(__file__).parent.parent / 'docs'
          / 'protocols.md').read_text()
  for name in protocols.PROTOCOLS:
    assert f'`{name}`' in text, name
