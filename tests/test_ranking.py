"""Ranks, ties, groups and chance, on matrices small enough to check by eye."""

import itertools

import numpy as np
import pytest

from m3p_jax.evaluation import ranking

SCORES = np.array([
    [.9, .1, .5, .3],
    [.2, .8, .7, .1],
    [.6, .5, .4, .3],
])


def _right(*answers):
  right = np.zeros((len(answers), 4), bool)
  for query, answer in enumerate(answers):
    right[query, list(answer)] = True
  return right


@pytest.mark.parametrize('scores, right, expected', [
    (SCORES, ({0}, {2}, {3}), [1, 2, 4]),
    # The best of several right answers counts; none is ahead of another.
    (SCORES, ({1, 2}, {0, 1}, {2, 3}), [2, 1, 3]),
    (SCORES, ({0, 2}, {1, 2}, {0, 1, 2, 3}), [1, 1, 1]),
    # Ties count against the model, and pairs that were not scored rank last.
    (np.zeros((1, 4)), ({0},), [4]),
    (np.zeros((1, 4)), ({0, 3},), [3]),
    (np.array([[-np.inf, .5, -np.inf, .2]]), ({3},), [2]),
    (np.array([[-np.inf, .5, -np.inf, .2]]), ({0},), [4])])
def test_ranks_known_by_hand(scores, right, expected):
  found = ranking.best_ranks(scores, _right(*right))
  np.testing.assert_array_equal(found, expected)


def test_order_of_candidates_does_not_matter():
  rng = np.random.default_rng(0)
  scores = rng.integers(0, 5, (20, 30)).astype(np.float32)
  right = rng.random((20, 30)) < .1
  right[:, 0] = True
  order = rng.permutation(30)
  np.testing.assert_array_equal(
      ranking.best_ranks(scores, right),
      ranking.best_ranks(scores[:, order], right[:, order]))


@pytest.mark.parametrize('scores, right, message', [
    (np.where(np.eye(3, 4, 2) > 0, np.nan, SCORES), ({0}, {1}, {2}),
     'query 0 and candidate 2 is NaN'),
    (SCORES, ({0}, set(), {2}), 'query 1 has no right answer'),
    (SCORES, ({0},), 'shape')])
def test_what_has_no_rank_is_refused(scores, right, message):
  with pytest.raises(ValueError, match=message):
    ranking.best_ranks(scores, _right(*right))


def test_metrics_by_hand():
  result = ranking.metrics(
      SCORES, _right({0}, {2}, {3}), recalls=(1, 2))
  assert result['r1'] == pytest.approx(100 / 3)
  assert result['r2'] == pytest.approx(200 / 3)
  assert result['median_rank'] == 2
  assert result['mean_rank'] == pytest.approx(7 / 3)
  assert result['mrr'] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
  assert result['chance_r1'] == pytest.approx(25)
  assert result['chance_r2'] == pytest.approx(50)


@pytest.mark.parametrize('num_right', [1, 2, 4])
@pytest.mark.parametrize('k', [1, 3, 5])
def test_chance_equals_counting_all_orders(num_right, k):
  orders = list(itertools.permutations(range(5)))
  found = np.mean([min(order[:num_right]) < k for order in orders])
  assert ranking.chance_recall(num_right, 5, k) == pytest.approx(found)


def test_chance_agrees_with_random_scores():
  rng = np.random.default_rng(0)
  right = rng.random((4_000, 40)) < .05
  right[np.arange(4_000), rng.integers(0, 40, 4_000)] = True
  result = ranking.metrics(rng.random(right.shape), right)
  for k in ranking.RECALLS:
    # Three standard errors of a share of 4,000 draws.
    assert result[f'r{k}'] == pytest.approx(result[f'chance_r{k}'], abs=2.4)


def _brute_force(scores_Q, is_right_Q):
  """Returns the places of one query's right answers, wrong ones before ties."""
  order = sorted(range(len(scores_Q)),
                 key=lambda i: (-scores_Q[i], is_right_Q[i]))
  return [place for place, i in enumerate(order, 1) if is_right_Q[i]]


def test_every_right_answers_rank_and_ndcg_by_hand():
  scores = np.array([[.9, .5, .5, .1], [.2, .4, .3, .1]])
  right = np.array([[0, 1, 1, 1], [1, 0, 0, 0]], bool)
  query_P, rank_P = ranking.right_ranks(scores, right)
  assert query_P.tolist() == [0, 0, 0, 1]
  assert rank_P.tolist() == [2, 3, 4, 3]
  first = (1 / np.log2(3) + 1 / np.log2(4) + 1 / np.log2(5)) / (
      1 + 1 / np.log2(3) + 1 / np.log2(4))
  assert ranking.ndcg(scores, right) == pytest.approx(
      (first + 1 / np.log2(4)) / 2)
  # The third place is out of reach of nDCG@2.
  assert ranking.ndcg(scores[1:], right[1:], k=2) == 0


@pytest.mark.parametrize('seed', range(4))
def test_metrics_equal_brute_force(seed):
  rng = np.random.default_rng(seed)
  # Few values: many ties.
  scores = rng.integers(0, 6, (15, 30)).astype(float)
  right = rng.random((15, 30)) < 0.1
  right[np.arange(15), rng.integers(0, 30, 15)] = True
  ranks = [_brute_force(*row) for row in zip(scores, right, strict=True)]
  found = ranking.metrics(scores, right)
  best = np.array([row[0] for row in ranks])
  for k in (1, 5, 10):
    assert found[f'r{k}'] == pytest.approx(100 * (best <= k).mean())
  assert found['median_rank'] == np.median(best)
  assert found['mean_rank'] == pytest.approx(best.mean())
  assert found['mrr'] == pytest.approx((1 / best).mean())
  gains = [sum(1 / np.log2(1 + rank) for rank in row if rank <= 10)
           / sum(1 / np.log2(2 + i) for i in range(min(len(row), 10)))
           for row in ranks]
  assert found['ndcg10'] == pytest.approx(np.mean(gains))


def test_ranks_do_not_depend_on_how_much_is_compared_at_once(monkeypatch):
  rng = np.random.default_rng(9)
  scores, right = rng.normal(size=(9, 20)), rng.random((9, 20)) < 0.2
  whole = ranking.right_ranks(scores, right)
  monkeypatch.setattr(ranking, '_CHUNK', 45)
  np.testing.assert_array_equal(ranking.right_ranks(scores, right), whole)
