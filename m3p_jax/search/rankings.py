"""Orders a collection's pictures for one query, in stages.

Letters: I pictures, N the first of them.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from m3p_jax.evaluation import rerank
from m3p_jax.search import cosines as cosines_lib

MODES = ('dual', 'rerank', 'joint')
# Pictures that the joint encoder takes at a time: other queries are answered in
# between, and wait for no longer than these take, about two queries' time.
CHUNK = 8

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
