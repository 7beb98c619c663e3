"""Which pictures of a ranking are shown: filtered, ordered, alike ones folded.

Letters: I pictures, N the first of them.
"""

import datetime
from typing import NamedTuple

import numpy as np

from input_pipeline import errors
from m3p_jax.search import index as index_lib
from m3p_jax.search import rankings

ORDERS = ('relevance', 'date')
# By date the order of all pictures would say nothing of the query: these fit.
BEST = 200
# Of pictures looked at for one that is shown, to find those like it.
_AHEAD = 4


class Wanted(NamedTuple):
  """What of a ranking is asked for."""
  k: int = 10
  offset: int = 0  # Of those that came before.
  folder: str = ''  # With those below it; '' = all.
  since: str = ''  # First day, as 2024-05-31; '' = any.
  until: str = ''  # Last day.
  order: str = 'relevance'  # One of `ORDERS`.
  is_folded: bool = True  # Near duplicates of a better one are left out.


class Chosen(NamedTuple):
  """A picture that is shown, and its near duplicates, by number."""
  number: int
  similar: list[int]


def choose(ranking: rankings.Ranking, index: index_lib.Index,
           wanted: Wanted) -> tuple[list[Chosen], bool]:
  """Returns the pictures that are wanted, and whether there are more.

  Raises:
    UserError: no date, folder or order.
  """
  errors.check_choice('order', wanted.order, ORDERS)
  is_allowed_I = _allowed(index, wanted)
  count = (len(index.pictures) if is_allowed_I is None
           else int(is_allowed_I.sum()))
  last = wanted.offset + wanted.k
  if wanted.order == 'date':
    found_N = ranking.best(min(BEST, count), is_allowed_I)
    # As floats: NaT, the least number, has no opposite among integers.
    found_N = found_N[np.argsort(
        -index.columns.day_I[found_N].astype(np.int64).astype(np.float64),
        kind='stable')]
    chosen = _fold(found_N, index) if wanted.is_folded else _each(found_N)
    return chosen[wanted.offset:last], len(chosen) > last
  size = last + 1
  while True:
    found_N = ranking.best(min(size * (_AHEAD if wanted.is_folded else 1),
                               count), is_allowed_I)
    chosen = _fold(found_N, index) if wanted.is_folded else _each(found_N)
    if len(chosen) > last or len(found_N) == count:
      return chosen[wanted.offset:last], len(chosen) > last
    size *= 2


def _allowed(index: index_lib.Index, wanted: Wanted) -> np.ndarray | None:
  """Returns which pictures are asked for, None where all are."""
  if not (wanted.folder or wanted.since or wanted.until):
    return None
  is_allowed_I = np.ones(len(index.columns.day_I), bool)
  if wanted.folder:
    below = [number for number, name in enumerate(index.folders)
             if f'{name}/'.startswith(f'{wanted.folder}/')]
    if not below:
      raise errors.UserError(f'folder is {wanted.folder!r}; allowed: one of '
                             'the collection')
    is_allowed_I &= np.isin(index.columns.folder_I, below)
  # NaT, of a picture without a date, is in no time.
  if wanted.since:
    is_allowed_I &= index.columns.day_I >= _day('since', wanted.since)
  if wanted.until:
    is_allowed_I &= index.columns.day_I <= _day('until', wanted.until)
  return is_allowed_I


def _day(name: str, value: str) -> np.datetime64:
  try:
    return np.datetime64(datetime.date.fromisoformat(value), 'D')
  except ValueError as error:
    raise errors.UserError(
        f'{name} is {value!r}; allowed: a day, as 2024-05-31') from error


def _each(found_N: np.ndarray) -> list[Chosen]:
  return [Chosen(number, []) for number in found_N.tolist()]


def _fold(found_N: np.ndarray, index: index_lib.Index) -> list[Chosen]:
  """Returns pictures, each with those after it that look like it."""
  chosen: list[Chosen] = []
  looks = np.zeros(len(found_N), np.uint64)
  for number in found_N.tolist():
    look = index.columns.look_I[number]
    if look:  # 0 = not known, or without any contrast.
      known = looks[:len(chosen)]
      same = np.flatnonzero((np.bitwise_count(
          known ^ look) <= index_lib.SAME_BITS) & (known != 0))
      if len(same):
        chosen[same[0]].similar.append(number)
        continue
    looks[len(chosen)] = look
    chosen.append(Chosen(number, []))
  return chosen
