"""Intervals and tests that are right about made-up runs."""

import math

import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax.evaluation import compare
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import results
from m3p_jax.evaluation import statistics


def language(ranks, units=None):
  """Returns one caption and one picture a unit, both of these ranks."""
  rank_Q = np.array(ranks)
  queries = statistics.Queries(
      rank_Q, np.arange(len(rank_Q)) if units is None else np.array(units))
  return {direction: queries for direction in protocols.DIRECTIONS}


def noisy(chance, size, seed):
  """Returns ranks 1 with the given chance, else 99."""
  return np.where(np.random.default_rng(seed).random(size) < chance, 1, 99)


def test_queries_know_their_ranks_and_their_picture():
  trial = protocols.tux_paint(4, [{1, 3}, {2}])
  scores_CI = np.array([[.9, .1, .2, .3], [.5, .6, .7, .8]])
  found = statistics.queries(trial, scores_CI, scores_CI)
  assert found['text_to_image'].rank_Q.tolist() == [2, 2]
  # Pictures 1 and 3 share their caption: one unit, the first of them.
  assert found['text_to_image'].unit_Q.tolist() == [1, 2]
  assert trial.image_queries_Q.tolist() == [1, 2, 3]
  assert found['image_to_text'].unit_Q.tolist() == [1, 2, 1]
  assert found['image_to_text'].rank_Q.tolist() == [2, 1, 2]


def test_the_interval_is_that_of_a_share():
  one = language(noisy(0.4, 400, 0))
  found = statistics.interval([one])
  share = float((one['text_to_image'].rank_Q == 1).mean())
  assert found.value == pytest.approx(100 * share)
  half = 196 * math.sqrt(share * (1 - share) / 400)
  assert found.low == pytest.approx(100 * share - half, abs=0.6)
  assert found.high == pytest.approx(100 * share + half, abs=0.6)
  assert statistics.interval([one]) == found
  assert statistics.interval([one], seed=1) != found
  assert statistics.mean_recall([one]) == found.value


def test_queries_of_one_picture_are_not_independent():
  ranks = noisy(0.5, 100, 1)
  single = statistics.interval([language(ranks)])
  # The same answers ten times add no knowledge.
  repeated = statistics.interval([language(
      np.repeat(ranks, 10), np.repeat(np.arange(100), 10))])
  assert repeated == pytest.approx(single)
  # Nor does a second language that answers alike.
  assert statistics.interval([language(ranks)] * 2) == pytest.approx(single)


def test_a_difference_is_found_and_noise_is_not():
  base = noisy(0.4, 300, 2)
  better = np.where(noisy(0.15, 300, 3) == 1, 1, base)
  found, p = statistics.paired([language(better)], [language(base)])
  assert found.value > 0 and found.low > 0
  assert p < 0.001
  found, p = statistics.paired(
      [language(noisy(0.4, 300, 7))], [language(base)])
  assert found.low < 0 < found.high
  assert p > 0.05
  found, p = statistics.paired([language(base)], [language(base)])
  assert found == (0, 0, 0) and p == 1


def test_the_test_holds_its_level():
  """Runs that do not differ are told apart in about 5 % of the cases."""
  rng = np.random.default_rng(5)
  called = sum(statistics.paired(
      [language(noisy(0.5, 60, rng.integers(1 << 30)))],
      [language(noisy(0.5, 60, rng.integers(1 << 30)))])[1] < 0.05
               for _ in range(30))
  assert called <= 6  # More has P = 0.03 % at a true 5 %.


def test_pairing_is_narrower_than_two_intervals():
  base = noisy(0.5, 200, 6)
  better = base.copy()
  better[:6] = 1
  found, _ = statistics.paired([language(better)], [language(base)])
  alone = statistics.interval([language(base)])
  assert found.high - found.low < (alone.high - alone.low) / 2


def test_other_queries_are_refused():
  with pytest.raises(ValueError, match='other text_to_image queries'):
    statistics.paired([language([1, 2])], [language([1, 2], [0, 5])])


def test_mean_rank_variance_by_hand():
  one, other = language([1, 4, 9]), language([3, 4])
  # Units 0 and 1 are asked in both: variances 1 and 0.
  assert statistics.mean_rank_variance([one, other]) == {
      direction: 0.5 for direction in protocols.DIRECTIONS}
  # Two captions of a picture count by their mean.
  several = language([1, 3, 4], [0, 0, 1])
  assert statistics.mean_rank_variance([several, language([2, 4])]) == {
      direction: 0 for direction in protocols.DIRECTIONS}
  assert statistics.mean_rank_variance([one]) == {}


def test_ranks_are_kept_language_by_language(tmp_path):
  result = tmp_path / 'retrieval.json'
  assert results.load_ranks(result, 'all') == {}
  results.update_ranks(result, 'all', {
      'en': language([1, 2]), 'zh_CN': language([3])})
  results.update_ranks(result, 'all', {'en': language([5, 6])})
  found = results.load_ranks(result, 'all')
  assert found['en']['text_to_image'].rank_Q.tolist() == [5, 6]
  assert found['zh_CN']['image_to_text'].rank_Q.tolist() == [3]
  path = results.ranks_path(result, 'all')
  assert [one.name for one in path.parent.iterdir()] == [path.name]
  path.write_bytes(b'cut')
  with pytest.raises(errors.UserError, match='not the ranks'):
    results.load_ranks(result, 'all')


def make_run(queries, checksum='ab', **header):
  header = {'protocol': 'tux-paint', 'dataset': 'd', 'split': 'test'} | header
  return compare.Run('A/retrieval.json', header, {
      name: {'queries': checksum} for name in queries}, queries)


def test_runs_are_compared_by_language_and_together():
  one = make_run({'en': language([1, 1, 20]), 'de': language([1, 20, 20])})
  other = make_run({'de': language([20, 20, 20]), 'en': language([1, 1, 20])})
  rows = compare.compare(one, other)
  assert [row.title for row in rows] == ['en', 'de', 'mean of 2']
  assert rows[1].difference.value == pytest.approx(100 / 3)
  assert rows[2].difference.value == pytest.approx(50 / 3)
  assert rows[2].one - rows[2].other == pytest.approx(50 / 3)
  assert '| de | 33.3 | 0.0 | +33.33 |' in compare.table(rows)


@pytest.mark.parametrize('other, message', [
    (make_run({'en': language([1])}, split='validation'), 'same protocol'),
    (make_run({'en': language([1])}, checksum='cd'), 'other captions'),
    (make_run({'fr': language([1])}), 'no language in common')])
def test_runs_that_answered_something_else_are_refused(other, message):
  with pytest.raises(errors.UserError, match=message):
    compare.compare(make_run({'en': language([1])}), other)
