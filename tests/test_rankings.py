"""Rankings in stages: dual first, then what the joint encoder makes of it."""

import numpy as np
import pytest

from m3p_jax.search import rankings

COUNT = 2 * rankings.CHUNK + 9
RNG = np.random.default_rng(0)
COSINE = RNG.uniform(-1, 1, COUNT).astype(np.float32)
LOGITS = RNG.normal(size=COUNT).astype(np.float32)


def run(mode, **settings):
  asked = []

  def match(chosen):
    asked.extend(chosen.tolist())
    return LOGITS[chosen]

  found = list(rankings.stages(
      COSINE, match, mode=mode, logit_scale=10.0,
      settings=rankings.Settings(**settings)))
  return found, asked


def test_every_mode_begins_with_the_dual_order():
  for mode in rankings.MODES:
    first = run(mode)[0][0]
    np.testing.assert_array_equal(first.best(COUNT), np.argsort(-COSINE))
    assert first.seen == 0 and np.isnan(first.match_I).all()
  assert len(run('dual')[0]) == 1 and not run('dual')[1]


@pytest.mark.parametrize('weight', [-1.0, 0.5])
def test_reranking_orders_the_first_few_and_keeps_the_rest(weight):
  (first, last), asked = run('rerank', top_k=7, joint_weight=weight)
  best = first.best(7)
  assert sorted(asked) == sorted(best.tolist())
  scores = LOGITS if weight < 0 else 10 * COSINE + weight * LOGITS
  np.testing.assert_array_equal(
      last.best(7), best[np.argsort(-scores[best])])
  np.testing.assert_array_equal(last.best(COUNT)[7:], first.best(COUNT)[7:])
  np.testing.assert_array_equal(last.match_I[best], LOGITS[best])


def test_joint_scoring_asks_for_every_picture_once_best_first():
  found, asked = run('joint')
  assert asked == found[0].best(COUNT).tolist()
  assert [one.seen for one in found] == [
      0, rankings.CHUNK, 2 * rankings.CHUNK, COUNT]
  np.testing.assert_array_equal(found[-1].best(COUNT), np.argsort(-LOGITS))
  seen = found[1]  # What it has not looked at stands below what it has.
  assert (~np.isnan(seen.match_I[seen.best(COUNT)])).tolist() == (
      [True] * rankings.CHUNK + [False] * (COUNT - rankings.CHUNK))


def test_the_first_few_are_those_of_the_whole_order():
  # Many are equal: of those the first come first.
  score_I = RNG.integers(0, 9, COUNT).astype(np.float32)
  one = rankings.Ranking(score_I, score_I, LOGITS, 0, 0)
  for k in (1, 5, 40, COUNT - 1, COUNT, COUNT + 1):
    np.testing.assert_array_equal(
        one.best(k), np.argsort(-score_I, kind='stable')[:k])


def test_more_candidates_than_pictures_are_all():
  found, asked = run('rerank', top_k=10 * COUNT)
  assert len(asked) == COUNT and found[-1].wanted == COUNT


def test_a_logit_becomes_a_probability():
  assert rankings.probability(0.0) == 0.5
  assert rankings.probability(np.nan) is None
  assert rankings.probability(np.float32(-2000)) == 0.0
