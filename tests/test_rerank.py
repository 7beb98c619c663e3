"""Re-ranking on matrices small enough to check by eye."""

import numpy as np
import pytest

from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import rerank

DUAL = np.array([[4., 3., 2., 1.]])
MATCH = np.array([[-9., 5., 7., 99.]])


def _order(scores_QN):
  return np.argsort(-scores_QN, axis=1, kind='stable').tolist()


def _scores(num_captions=12, num_images=15, seed=0):
  rng = np.random.default_rng(seed)
  trial = protocols.tux_paint(
      num_images, [{i, i + 1} for i in range(num_captions)])
  shape = trial.is_right_CI.shape
  return rerank.Scores(trial, rng.normal(size=shape).astype(np.float32),
                       rng.normal(size=shape).astype(np.float32))


def test_the_match_logit_orders_the_top_k_alone():
  scores = rerank.reorder(DUAL, MATCH, top_k=3, joint_weight=-1.0)
  assert _order(scores) == [[2, 1, 0, 3]]


def test_both_scores_are_added():
  scores = rerank.reorder(DUAL, MATCH, top_k=2, joint_weight=0.5)
  assert _order(scores) == [[1, 0, 2, 3]]
  scores = rerank.reorder(DUAL, MATCH, top_k=2, joint_weight=0.01)
  assert _order(scores) == [[0, 1, 2, 3]]


def test_those_outside_keep_the_dual_order_below():
  scores = _scores()
  final = rerank.reorder(scores.dual_CI, scores.match_CI * 100, top_k=4,
                         joint_weight=-1.0)
  inside = rerank.is_candidate(scores.dual_CI, 4)
  assert inside.sum(1).tolist() == [4] * len(inside)
  for row, dual, chosen in zip(final, scores.dual_CI, inside, strict=True):
    assert row[chosen].min() > row[~chosen].max()
    assert (np.argsort(row[~chosen]) == np.argsort(dual[~chosen])).all()


def test_top_k_of_everything_equals_the_joint_order():
  scores = _scores()
  final = rerank.reorder(scores.dual_CI, scores.match_CI, top_k=99,
                         joint_weight=-1.0)
  assert _order(final) == _order(scores.match_CI)


def test_no_candidates_and_weight_zero_leave_the_dual_order():
  scores = _scores()
  for top_k, weight in ((0, -1.0), (0, 2.0), (5, 0.0)):
    final = rerank.reorder(scores.dual_CI, scores.match_CI, top_k=top_k,
                           joint_weight=weight)
    assert _order(final) == _order(scores.dual_CI)


def test_ties_stay_ties_outside_the_top_k():
  final = rerank.reorder(np.array([[9., 1., 1., 1.]]), np.zeros((1, 4)),
                         top_k=1, joint_weight=-1.0)
  assert final[0, 1] == final[0, 2] == final[0, 3] < final[0, 0]


def test_pairs_of_both_directions_are_wanted_once():
  trial = protocols.tux_paint(4, [{0}, {1}])
  dual_CI = np.array([[9., 0., 8., 7.], [1., 3., 0., 4.]])
  wanted = rerank.wanted_pairs(trial, dual_CI, 1)
  # Captions choose pictures 0 and 3; pictures 0 and 1 are queries.
  assert wanted.tolist() == [[True, False, False, False],
                             [False, True, False, True]]


def test_only_pairs_inside_are_read():
  scores = _scores()
  wanted = rerank.wanted_pairs(scores.trial, scores.dual_CI, 3)
  partial = scores._replace(
      match_CI=np.where(wanted, scores.match_CI, np.nan))
  for top_k in (1, 2, 3):
    assert rerank.measure(
        partial, top_k=top_k, joint_weight=1.0) == rerank.measure(
            scores, top_k=top_k, joint_weight=1.0)
  with pytest.raises(ValueError, match='NaN'):
    rerank.measure(partial, top_k=6, joint_weight=1.0)


def test_the_choice_is_the_best_of_its_curves():
  scores = [_scores(seed=1), _scores(seed=2)]
  choice = rerank.choose(scores, top_ks=(2, 5), joint_weights=(0.5, -1.0))
  assert list(choice.top_k_curve) == [0, 2, 5]
  assert list(choice.joint_weight_curve) == [0.5, -1.0]
  assert choice.joint_weight_curve == choice.mean_recall[5]
  best = max(value for k in (2, 5) for value in choice.mean_recall[k].values())
  assert choice.top_k_curve[choice.top_k] == best
  expected = np.mean([
      rerank.measure(one, top_k=5, joint_weight=0.5)['mean_recall']
      for one in scores])
  assert choice.mean_recall[5][0.5] == pytest.approx(expected)


def test_a_perfect_joint_encoder_is_chosen_at_its_largest_k():
  scores = _scores()
  perfect = scores._replace(match_CI=scores.trial.is_right_CI * 1000.)
  choice = rerank.choose([perfect], top_ks=(2, 15),
                         joint_weights=(1.0,))
  assert choice.top_k == 15
  assert choice.top_k_curve[15] == 100
