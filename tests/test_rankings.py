"""Rankings in stages: dual first, then what the joint encoder makes of it.

And what is shown of one: all of it once, by pages, or what is asked.
"""

import itertools
import os
import pathlib
import re

import numpy as np
from PIL import Image
from PIL import ImageEnhance
import pytest

from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import paths
from m3p_jax.search import cosines as cosines_lib
from m3p_jax.search import index as index_lib
from m3p_jax.search import rankings

COUNT = 2 * rankings.CHUNK + 9
RNG = np.random.default_rng(0)
COSINE = RNG.uniform(-1, 1, COUNT).astype(np.float32)
LOGITS = RNG.normal(size=COUNT).astype(np.float32)
# Of the rankings of which something is shown.
PICTURES = 60
FOLDERS = ('d/a', 'd/a/b', 'd/ab')


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


@pytest.fixture
def index():
  """Returns sixty pictures, of which every third looks like its neighbour."""
  rng = np.random.default_rng(0)
  looks = [bytes(rng.integers(0, 256, 8, np.uint8)) for _ in range(PICTURES)]
  for number in range(0, PICTURES, 3):
    looks[number + 1] = looks[number][:7] + bytes([looks[number][7] ^ 7])
  looks[5] = looks[8] = bytes(8)  # Without contrast.
  return index_lib.Index([{
      'image_id': f'{FOLDERS[number % 3]}/{number}.jpg',
      'captions': {'en': ['a picture']}, 'picture': '', 'original': '',
      'look': look.hex(), 'date': f'20{10 + number % 10}-05-31T12:00:00'
      if number else ''} for number, look in enumerate(looks)],
                         np.zeros((PICTURES, 2), np.float32))


@pytest.fixture
def ranking():
  return make_ranking(np.random.default_rng(1).permutation(PICTURES))


def make_ranking(score_I):
  """Returns the dual encoder's ranking of pictures with these cosines."""
  (first,) = rankings.stages(
      cosines(score_I), np.asarray, mode='dual', logit_scale=1.0,
      settings=rankings.Settings())
  return first


def _choose(ranking, index, **wanted):
  return rankings.choose(ranking, index, rankings.Wanted(**wanted))


def test_pages_have_every_picture_once_and_copies_beside_the_better(
    ranking, index):
  pages = []
  for offset in itertools.count(0, 7):
    chosen, has_more = _choose(ranking, index, k=7, offset=offset)
    pages += chosen
    if not has_more:
      break
  whole, has_more = _choose(ranking, index, k=PICTURES)
  assert not has_more and [one.number for one in pages] == [
      one.number for one in whole]
  assert sorted(sum(([one.number, *one.similar] for one in whole), [])) == (
      list(range(PICTURES)))
  score_I = ranking.cosines.of(range(PICTURES))
  assert (np.diff(score_I[[one.number for one in whole]]) < 0).all()
  assert len(whole) == PICTURES - PICTURES // 3
  for one in whole:
    for other in one.similar:
      assert {one.number // 3, other // 3} == {one.number // 3}
      assert score_I[other] < score_I[one.number]
      assert other in index.alike(one.number)
  alone, _ = _choose(ranking, index, k=PICTURES, is_folded=False)
  assert [one.number for one in alone] == ranking.best(PICTURES).tolist()


def test_folders_and_days_leave_the_others_out(ranking, index):
  def numbers(**wanted):
    return {one.number for one in _choose(
        ranking, index, k=PICTURES, is_folded=False, **wanted)[0]}

  everything = set(range(PICTURES))
  assert numbers(folder='d/a') == {n for n in everything if n % 3 < 2}
  assert numbers(folder='d/a/b') == {n for n in everything if n % 3 == 1}
  assert numbers(folder='d') == everything
  assert numbers(since='2015-05-31') == {n for n in everything if n % 10 > 4}
  assert numbers(since='2015-06-01', until='2016-05-31', folder='d/ab') == {
      n for n in everything if n % 10 == 6 and n % 3 == 2}
  # A picture without a date is in no time.
  assert 0 not in numbers(until='2030-01-01')
  assert numbers(since='2030-01-01') == set()


def test_by_date_the_newest_comes_first_and_the_undated_last(ranking, index):
  chosen, _ = _choose(
      ranking, index, k=PICTURES, order='date', is_folded=False)
  days = index.columns.day_I[[one.number for one in chosen]]
  assert chosen[-1].number == 0
  assert (np.diff(days[:-1]) <= np.timedelta64(0)).all()


@pytest.mark.parametrize(('wanted', 'message'), [
    ({'folder': 'b'}, "folder is 'b'"), ({'since': '2024'}, "since is '2024'"),
    ({'until': 'x'}, 'a day, as 2024-05-31'), ({'order': 'x'}, 'relevance')])
def test_what_cannot_be_asked_for_is_told(ranking, index, wanted, message):
  with pytest.raises(errors.UserError, match=message):
    _choose(ranking, index, **wanted)


def test_copies_look_the_same_and_others_do_not():
  rng, looks = np.random.default_rng(0), {}
  for number in range(12):
    image = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize(
        (256, 256), Image.Resampling.BICUBIC)
    looks[number] = int(copies.look(image), 16)
    for same in (image.resize((120, 120)), image.convert('L'),
                 ImageEnhance.Brightness(image).enhance(.8)):
      changed = int(copies.look(same), 16) ^ looks[number]
      assert changed.bit_count() <= index_lib.SAME_BITS, number
  for one, other in itertools.combinations(looks.values(), 2):
    assert (one ^ other).bit_count() > index_lib.SAME_BITS


def test_names_of_files_are_no_captions():
  def make(*captions):
    return index_lib.Index([
        {'image_id': f'trips/red_car-{number}.jpg', 'captions': one,
         'picture': ''} for number, one in enumerate(captions)],
                           np.zeros((len(captions), 2), np.float32))

  named = make({'en': ['red car 0']}, {'en': ['red car 1']})
  assert named.captions == {} and named.caption(0) == ''
  told = make({'en': ['red car 0']}, {'en': ['a bus']})
  assert told.caption(0) == 'red car 0' and len(told.captions['en']) == 2
