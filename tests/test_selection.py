"""What is shown of a ranking: all of it once, by pages, or what is asked."""

import itertools

import numpy as np
from PIL import Image
from PIL import ImageEnhance
import pytest

from input_pipeline import copies
from input_pipeline import errors
from m3p_jax.search import cosines as cosines_lib
from m3p_jax.search import index as index_lib
from m3p_jax.search import rankings

COUNT = 60
FOLDERS = ('d/a', 'd/a/b', 'd/ab')


@pytest.fixture
def index():
  """Returns sixty pictures, of which every third looks like its neighbour."""
  rng = np.random.default_rng(0)
  looks = [bytes(rng.integers(0, 256, 8, np.uint8)) for _ in range(COUNT)]
  for number in range(0, COUNT, 3):
    looks[number + 1] = looks[number][:7] + bytes([looks[number][7] ^ 7])
  looks[5] = looks[8] = bytes(8)  # Without contrast.
  return index_lib.Index([{
      'image_id': f'{FOLDERS[number % 3]}/{number}.jpg',
      'captions': {'en': ['a picture']}, 'picture': '', 'original': '',
      'look': look.hex(), 'date': f'20{10 + number % 10}-05-31T12:00:00'
      if number else ''} for number, look in enumerate(looks)],
                         np.zeros((COUNT, 2), np.float32))


@pytest.fixture
def ranking():
  return make_ranking(np.random.default_rng(1).permutation(COUNT))


def make_ranking(score_I):
  """Returns the dual encoder's ranking of pictures with these cosines."""
  cosines = cosines_lib.Cosines(cosines_lib.Gallery(
      np.array(score_I, np.float32)[:, None]), np.ones(1, np.float32))
  (first,) = rankings.stages(cosines, np.asarray, mode='dual', logit_scale=1.0,
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
  whole, has_more = _choose(ranking, index, k=COUNT)
  assert not has_more and [one.number for one in pages] == [
      one.number for one in whole]
  assert sorted(sum(([one.number, *one.similar] for one in whole), [])) == (
      list(range(COUNT)))
  score_I = ranking.cosines.of(range(COUNT))
  assert (np.diff(score_I[[one.number for one in whole]]) < 0).all()
  assert len(whole) == COUNT - COUNT // 3
  for one in whole:
    for other in one.similar:
      assert {one.number // 3, other // 3} == {one.number // 3}
      assert score_I[other] < score_I[one.number]
      assert other in index.alike(one.number)
  alone, _ = _choose(ranking, index, k=COUNT, is_folded=False)
  assert [one.number for one in alone] == ranking.best(COUNT).tolist()


def test_folders_and_days_leave_the_others_out(ranking, index):
  def numbers(**wanted):
    return {one.number for one in _choose(
        ranking, index, k=COUNT, is_folded=False, **wanted)[0]}

  everything = set(range(COUNT))
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
      ranking, index, k=COUNT, order='date', is_folded=False)
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
