"""Rankings in stages: dual first, then what the joint encoder makes of it."""

import os
import pathlib
import re

import numpy as np
import pytest

from input_pipeline import paths
from m3p_jax.search import cosines as cosines_lib
from m3p_jax.search import rankings

COUNT = 2 * rankings.CHUNK + 9
RNG = np.random.default_rng(0)
COSINE = RNG.uniform(-1, 1, COUNT).astype(np.float32)
LOGITS = RNG.normal(size=COUNT).astype(np.float32)


def cosines(score_I):
  """Returns these numbers as the cosines of a query."""
  return cosines_lib.Cosines(cosines_lib.Gallery(
      np.array(score_I, np.float32)[:, None]), np.ones(1, np.float32))


def run(mode, **settings):
  asked = []

  def match(chosen):
    asked.extend(chosen.tolist())
    return LOGITS[chosen]

  found = list(rankings.stages(
      cosines(COSINE), match, mode=mode, logit_scale=10.0,
      settings=rankings.Settings(**settings)))
  return found, asked


def matches(ranking):
  """Returns each picture's match probability, None = not looked at."""
  return [match for _, _, match in ranking.scores(range(COUNT))]


def test_every_mode_begins_with_the_dual_order():
  for mode in rankings.MODES:
    first = run(mode)[0][0]
    np.testing.assert_array_equal(first.best(COUNT), np.argsort(-COSINE))
    assert first.seen == 0 and set(matches(first)) == {None}
  assert len(run('dual')[0]) == 1 and not run('dual')[1]


@pytest.mark.parametrize('weight', [-1.0, 0.5])
def test_reranking_orders_the_first_few_and_keeps_the_rest(weight):
  (first, *_, last), asked = run('rerank', top_k=13, joint_weight=weight)
  best = first.best(13)
  assert sorted(asked) == sorted(best.tolist())
  scores = LOGITS if weight < 0 else 10 * COSINE + weight * LOGITS
  np.testing.assert_array_equal(
      last.best(13), best[np.argsort(-scores[best])])
  np.testing.assert_array_equal(last.best(COUNT)[13:], first.best(COUNT)[13:])
  assert [one for one in range(COUNT) if matches(last)[one] is not None] == (
      sorted(asked))
  # Scores say the same as the order, the others' too; so do those allowed.
  order = np.argsort([-score for score, _, _ in last.scores(range(COUNT))])
  np.testing.assert_array_equal(last.best(COUNT), order)
  is_allowed_I = RNG.random(COUNT) < 0.5
  np.testing.assert_array_equal(
      last.best(9, is_allowed_I), order[is_allowed_I[order]][:9])


def test_joint_scoring_asks_for_every_picture_once_best_first():
  found, asked = run('joint')
  assert asked == found[0].best(COUNT).tolist()
  assert [one.seen for one in found] == [
      *range(0, COUNT, rankings.CHUNK), COUNT]
  np.testing.assert_array_equal(found[-1].best(COUNT), np.argsort(-LOGITS))
  seen = found[1]  # What it has not looked at stands below what it has.
  assert [matches(seen)[one] is not None for one in seen.best(COUNT)] == (
      [True] * rankings.CHUNK + [False] * (COUNT - rankings.CHUNK))


def test_the_first_few_are_those_of_the_whole_order():
  # Many are equal: of those the first come first.
  score_I = RNG.integers(0, 9, COUNT)
  for k in (0, 1, 5, COUNT - 1, COUNT, COUNT + 1):
    np.testing.assert_array_equal(
        cosines(score_I).best(k), np.argsort(-score_I, kind='stable')[:k])


@pytest.mark.parametrize('spread', [1.0, 1e-3])
def test_faiss_changes_no_result(spread, monkeypatch):
  pytest.importorskip('faiss', reason='optional: requirements-faiss.txt')
  # The closer the vectors, the less its bytes tell; three are the same.
  vectors_IE = 1 + spread * RNG.normal(size=(5000, 24)).astype(np.float32)
  vectors_IE /= np.linalg.norm(vectors_IE, axis=1, keepdims=True)
  vectors_IE[[7, 4000]] = vectors_IE[2500]
  plain = cosines_lib.Gallery(vectors_IE)
  monkeypatch.setattr(cosines_lib.nearest, 'FAISS_FROM', 5000)
  quick = cosines_lib.Gallery(vectors_IE)
  assert plain.find(vectors_IE[0], 9) is None
  assert quick.find(vectors_IE[0], 9)[0][0] == 0 or spread < 1
  for number in (0, 7, 4999):
    for k in (1, 20, 700, 5001):
      one, other = (cosines_lib.Cosines(gallery, vectors_IE[number]).best(k)
                    for gallery in (plain, quick))
      np.testing.assert_array_equal(one, other)
      exact_I = vectors_IE.astype(float) @ vectors_IE[number].astype(float)
      np.testing.assert_allclose(exact_I[one], -np.sort(-exact_I)[:k],
                                 rtol=1e-12)
      if number == 7 and k > 3:
        assert one[:3].tolist() == [7, 2500, 4000]


@pytest.mark.skipif(not os.path.exists('/proc/self/smaps'), reason='of Linux')
def test_beside_faiss_the_vectors_stay_in_their_file(tmp_path, monkeypatch):
  pytest.importorskip('faiss', reason='optional: requirements-faiss.txt')
  vectors_IE = RNG.normal(size=(20_000, 256)).astype(np.float32)
  vectors_IE /= np.linalg.norm(vectors_IE, axis=1, keepdims=True)
  np.save(tmp_path / 'vectors.npy', vectors_IE)
  monkeypatch.setattr(cosines_lib.nearest, 'FAISS_FROM', 20_000)
  mapped_IE = paths.load(tmp_path / 'vectors.npy', is_mapped=True)
  gallery = cosines_lib.Gallery(mapped_IE)

  def kilobytes():
    _, _, text = pathlib.Path('/proc/self/smaps').read_text().partition(
        str(tmp_path / 'vectors.npy'))
    return int(re.search(r'Rss: +([0-9]+) kB', text)[1])

  for vector_E in vectors_IE[:20]:
    cosines_lib.Cosines(gallery, vector_E).best(10)
  assert kilobytes() < 1000
  # Else what is filtered, and reads all of them, would leave them there.
  is_allowed_I = np.arange(20_000) % 2 == 0
  found = cosines_lib.Cosines(gallery, vectors_IE[4]).best(10, is_allowed_I)
  assert found[0] == 4 and kilobytes() < 1000


def test_more_candidates_than_pictures_are_all():
  found, asked = run('rerank', top_k=10 * COUNT)
  assert len(asked) == COUNT and found[-1].wanted == COUNT


def test_a_logit_becomes_a_probability():
  assert rankings.probability(0.0) == 0.5
  assert rankings.probability(np.nan) is None
  assert rankings.probability(np.float32(-2000)) == 0.0
