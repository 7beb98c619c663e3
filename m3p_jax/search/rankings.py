"""Orders a collection's pictures for one query, and chooses what is shown.

The order comes in stages; of it some are filtered out, and alike ones folded.
Letters: I pictures, N the first of them.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import datetime
from typing import NamedTuple

import numpy as np

from input_pipeline import errors
from m3p_jax.evaluation import rerank
from m3p_jax.search import cosines as cosines_lib
from m3p_jax.search import index as index_lib

MODES = ('dual', 'rerank', 'joint')
# Pictures that the joint encoder takes at a time: other queries are answered in
# between, and wait for no longer than these take, about two queries' time.
CHUNK = 8
ORDERS = ('relevance', 'date')
# By date the order of all pictures would say nothing of the query: these fit.
BEST = 200
# Of pictures looked at for one that is shown, to find those like it.
_AHEAD = 4

# From numbers of pictures to the joint encoder's match logits.
Match = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the joint encoder re-ranks; see `config.evaluation`."""
  top_k: int = 20
  joint_weight: float = -1.0  # Negative = the match logit alone.


class Ranking(NamedTuple):
  """An order of all pictures; the last of a query's rankings is final.

  The joint encoder's scores are those of the first N; the others follow by
  their cosines.
  """
  cosines: cosines_lib.Cosines
  first_N: np.ndarray  # Numbers; empty = the dual encoder alone orders.
  score_N: np.ndarray  # What orders them.
  match_N: np.ndarray  # NaN where the joint encoder has not looked.
  seen: int  # Pictures that the joint encoder has looked at.
  wanted: int  # Pictures that it will have looked at in the end.
  scale: float = 1.0  # The others' scores: scale · cosine + shift.
  shift: float = 0.0

  def best(self, k: int, is_allowed_I: np.ndarray | None = None) -> np.ndarray:
    """Returns the numbers of k pictures that are allowed, best first."""
    first_N = self.first_N[np.argsort(-self.score_N, kind='stable')]
    if is_allowed_I is not None:
      first_N = first_N[is_allowed_I[first_N]]
    if len(first_N) < k:
      rest_N = self.cosines.best(k, is_allowed_I)
      first_N = np.append(first_N, rest_N[~np.isin(rest_N, self.first_N)])
    return first_N[:k]

  def scores(self, numbers: Sequence[int]
             ) -> list[tuple[float, float, float | None]]:
    """Returns score, cosine and match probability of some pictures."""
    places = {number: place for place, number in enumerate(
        self.first_N.tolist())}
    found = []
    for number, cosine in zip(
        numbers, self.cosines.of(numbers).tolist(), strict=True):
      place = places.get(number)
      found.append(
          (self.scale * cosine + self.shift, cosine, None) if place is None
          else (float(self.score_N[place]), cosine,
                probability(self.match_N[place])))
    return found


def stages(cosines: cosines_lib.Cosines, match: Match, *, mode: str,
           logit_scale: float, settings: Settings) -> Iterator[Ranking]:
  """Yields the dual encoder's ranking, then what the joint encoder makes of it.

  Mode 'dual' ends there; 'rerank' re-ranks the first `settings.top_k` and
  'joint' every picture, best cosines first, by the match logit alone.
  """
  wanted, weight = {
      'dual': (0, 0.0), 'joint': (cosines.count, -1.0),
      'rerank': (min(settings.top_k, cosines.count), settings.joint_weight)
  }[mode]
  nothing = np.zeros(0)
  yield Ranking(cosines, nothing.astype(np.int64), nothing, nothing, 0, wanted)
  if not wanted:
    return
  # With the best of those that will stay outside.
  first_N = cosines.best(wanted + 1)
  dual_N = logit_scale * cosines.of(first_N)
  match_N = np.full(len(first_N), np.nan, np.float32)
  for seen in range(0, wanted, CHUNK):
    chosen = first_N[seen:min(seen + CHUNK, wanted)]
    match_N = match_N.copy()
    match_N[seen:seen + len(chosen)] = match(chosen)
    seen += len(chosen)
    (score_N,) = rerank.reorder(
        dual_N[None], match_N[None], top_k=seen, joint_weight=weight)
    # The rest keeps its distance to the best of those outside.
    yield Ranking(cosines, first_N, score_N, match_N, seen, wanted,
                  logit_scale, float(score_N[-1] - dual_N[-1]))


def probability(logit: float) -> float | None:
  """Returns the logistic function of a match logit, None of NaN."""
  if np.isnan(logit):
    return None
  return float(np.exp(-np.logaddexp(0.0, -np.float64(logit))))


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


def choose(ranking: Ranking, index: index_lib.Index,
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
