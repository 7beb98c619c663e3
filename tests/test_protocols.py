"""The protocol `tux-paint` on four pictures and three captions."""

import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax.evaluation import protocols

# Pictures 0 and 1 share a caption; picture 3 has none in this language.
GROUPS = [{0, 1}, {2}]


def test_queries_and_right_answers():
  trial = protocols.get('tux-paint')(4, GROUPS)
  np.testing.assert_array_equal(
      trial.is_right_CI, [[1, 1, 0, 0], [0, 0, 1, 0]])
  np.testing.assert_array_equal(trial.image_queries_Q, [0, 1, 2])


def test_pictures_without_a_caption_are_candidates_but_no_queries():
  trial = protocols.tux_paint(4, GROUPS)
  scores_CI = np.array([[.1, .2, .0, .9], [.0, .1, .8, .9]])
  cell = protocols.measure(trial, scores_CI)
  # The picture without a caption comes first for both captions.
  assert cell['text_to_image']['r1'] == 0
  assert cell['text_to_image']['median_rank'] == 2
  assert cell['image_to_text']['r1'] == 100
  assert cell['image_to_text']['num_queries'] == 3
  assert (cell['num_images'], cell['num_captions']) == (4, 2)


def test_mean_recall_is_the_mean_of_six():
  cell = protocols.measure(protocols.tux_paint(4, GROUPS), np.eye(2, 4))
  recalls = [cell[direction][f'r{k}'] for k in (1, 5, 10)
             for direction in ('image_to_text', 'text_to_image')]
  assert cell['mean_recall'] == pytest.approx(np.mean(recalls))


def test_chance_knows_groups_and_gallery():
  cell = protocols.measure(protocols.tux_paint(4, GROUPS), np.zeros((2, 4)))
  # Captions: 2 of 4 and 1 of 4 pictures are right.
  assert cell['text_to_image']['chance_r1'] == pytest.approx(37.5)
  assert cell['image_to_text']['chance_r1'] == pytest.approx(50)
  assert cell['chance'] == pytest.approx((37.5 + 50 + 4 * 100) / 6)


def test_each_direction_can_have_its_own_scores():
  trial = protocols.tux_paint(4, GROUPS)
  right = trial.is_right_CI.astype(float)
  cell = protocols.measure(trial, right, -right)
  assert cell['text_to_image']['r1'] == 100
  assert cell['image_to_text']['r1'] == 0


def test_unknown_protocol_is_a_users_mistake():
  with pytest.raises(errors.UserError, match=r'karpathy.*tux-paint'):
    protocols.get('karpathy')


def test_a_caption_without_a_picture_is_refused():
  with pytest.raises(ValueError, match='caption 1 has no picture'):
    protocols.tux_paint(4, [{0}, set()])
