"""How sure a mean recall is: intervals, paired tests, ranks across languages.

What is drawn again is a picture with all that belongs to it (a unit): its
captions in every language and the queries of both directions. Single queries
would not be independent, and intervals would come out too narrow.

Letters: Q queries, U units, K recalls of both directions, S draws.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import ranking

LEVEL = 0.95
_DRAWS = 2_000
_SWAPS = 10_000
# Numbers in memory at once.
_CHUNK = 2 ** 22


class Queries(NamedTuple):
  """The queries of one direction in one language."""
  # Of the best right answer, from 1.
  rank_Q: np.ndarray
  # The picture that the query belongs to; of pictures that share their right
  # answers, the first.
  unit_Q: np.ndarray


# {direction: queries} of one language.
Language = Mapping[str, Queries]


def queries(trial: protocols.Trial, text_to_image_CI: np.ndarray,
            image_to_text_CI: np.ndarray) -> dict[str, Queries]:
  """Returns the queries of one trial and the ranks that scores give them."""
  queries_Q = trial.image_queries_Q
  unit_C = trial.pictures[trial.is_right_CI.argmax(1)]
  # A picture belongs where the first of its captions does.
  unit_Q = np.where(trial.is_right_CI[:, queries_Q], unit_C[:, np.newaxis],
                    np.iinfo(np.int64).max).min(0)
  return {
      'text_to_image': Queries(ranking.best_ranks(
          text_to_image_CI, trial.is_right_CI), unit_C),
      'image_to_text': Queries(ranking.best_ranks(
          image_to_text_CI.T[queries_Q], trial.is_right_CI.T[queries_Q]),
                               unit_Q)}


def join(parts: Sequence[Language]) -> dict[str, Queries]:
  """Returns the queries of a language's trials together."""
  return {direction: Queries(*map(np.concatenate, zip(
      *(part[direction] for part in parts), strict=True)))
          for direction in parts[0]}


class Interval(NamedTuple):
  """A mean recall, or a difference of two, with its interval; per cent."""
  value: float
  low: float
  high: float


def mean_recall(languages: Sequence[Language]) -> float:
  """Returns the mean recall over languages in per cent."""
  hits_UK, count_UK = _sums(languages, _units(languages))
  return float(_mean(hits_UK.sum(0)[np.newaxis],
                     count_UK.sum(0)[np.newaxis])[0])


def interval(languages: Sequence[Language], *, seed: int = 0) -> Interval:
  """Returns the mean recall over languages with its bootstrap interval.

  Units are drawn for all languages together.
  """
  hits_UK, count_UK = _sums(languages, _units(languages))
  return _bootstrap(lambda weight_SU: _mean(
      weight_SU @ hits_UK, weight_SU @ count_UK), len(hits_UK), seed)


def accuracy(is_right_Q: np.ndarray, unit_Q: np.ndarray, *,
             seed: int = 0) -> Interval:
  """Returns the share of right answers in per cent; `unit_Q` are pictures."""
  _, unit_Q = np.unique(unit_Q, return_inverse=True)
  hits_U, count_U = np.bincount(unit_Q, is_right_Q), np.bincount(unit_Q)
  return _bootstrap(lambda weight_SU: 100 * (weight_SU @ hits_U) / (
      weight_SU @ count_U), len(count_U), seed)


def paired(one: Sequence[Language], other: Sequence[Language], *,
           seed: int = 0) -> tuple[Interval, float]:
  """Returns one's mean recall minus the other's, and the p of "no difference".

  The interval draws units for both runs alike. The test swaps the runs'
  answers in each unit at random (two-sided permutation test): p is the share
  of swaps that differ at least as much, the observed one among them.

  Raises:
    ValueError: the runs' languages do not ask the same queries in one order.
  """
  for left, right in zip(one, other, strict=True):
    for direction in left:
      if not np.array_equal(left[direction].unit_Q, right[direction].unit_Q):
        raise ValueError(f'the two runs had other {direction} queries')
  units = _units(one)
  hits_UK, count_UK = _sums(one, units)
  difference_UK = hits_UK - _sums(other, units)[0]
  found = _bootstrap(lambda weight_SU: _mean(
      weight_SU @ difference_UK, weight_SU @ count_UK),
                     len(hits_UK), seed)
  # Swapping changes no count, so the mean is a sum over units.
  share_U = _mean(difference_UK, np.broadcast_to(
      count_UK.sum(0), count_UK.shape))
  rng = np.random.default_rng(seed)
  size = max(1, _CHUNK // len(share_U))
  swapped = np.concatenate([
      rng.choice((-1.0, 1.0), (min(size, _SWAPS - start), len(share_U)))
      @ share_U for start in range(0, _SWAPS, size)])
  as_far = np.abs(swapped) >= abs(found.value) - 1e-9
  return found, float((as_far.sum() + 1) / (_SWAPS + 1))


def mean_rank_variance(languages: Sequence[Language]) -> dict[str, float]:
  """Returns {direction: variance of a unit's rank over languages, mean}.

  Of units that every language asks for; a unit with several captions in a
  language has their mean rank there. 0 = every language ranks alike.
  Source: Nie et al. 2024, "Improving the Consistency in Cross-Lingual
  Cross-Modal Retrieval with 1-to-K Contrastive Learning".
  """
  found = {}
  for direction in protocols.DIRECTIONS:
    shared = set.intersection(*(
        set(one[direction].unit_Q.tolist()) for one in languages))
    if len(languages) > 1 and shared:
      units = np.array(sorted(shared))
      ranks_LU = np.stack([_unit_means(one[direction], units)
                           for one in languages])
      found[direction] = float(ranks_LU.var(0).mean())
  return found


def _unit_means(one: Queries, units: np.ndarray) -> np.ndarray:
  inside = np.isin(one.unit_Q, units)
  place = np.searchsorted(units, one.unit_Q[inside])
  return np.bincount(place, one.rank_Q[inside]) / np.bincount(place)


def _units(languages: Sequence[Language]) -> np.ndarray:
  return np.unique(np.concatenate([
      part.unit_Q for one in languages for part in one.values()]))


def _sums(languages: Sequence[Language], units: np.ndarray,
          ) -> tuple[np.ndarray, np.ndarray]:
  """Returns hits and counts [U, K], K = languages × directions × recalls."""
  hits, counts = [], []
  for one in languages:
    for direction in protocols.DIRECTIONS:
      place = np.searchsorted(units, one[direction].unit_Q)
      for k in ranking.RECALLS:
        counts.append(np.bincount(place, minlength=len(units)))
        hits.append(np.bincount(
            place, one[direction].rank_Q <= k, minlength=len(units)))
  return np.stack(hits, 1).astype(float), np.stack(counts, 1).astype(float)


def _mean(hits_SK: np.ndarray, count_SK: np.ndarray) -> np.ndarray:
  """Returns mean recalls [S] in per cent; a recall without a query is 0."""
  return 100.0 * (hits_SK / np.maximum(count_SK, 1.0)).mean(1)


def _bootstrap(statistic, num_units: int, seed: int) -> Interval:
  """Returns the statistic of all units, and quantiles over drawn ones."""
  rng = np.random.default_rng(seed)
  size = max(1, _CHUNK // num_units)
  drawn_S = np.concatenate([
      statistic(rng.multinomial(
          num_units, np.full(num_units, 1.0 / num_units),
          size=min(size, _DRAWS - start)).astype(float))
      for start in range(0, _DRAWS, size)])
  low, high = np.quantile(drawn_S, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
  return Interval(float(statistic(np.ones((1, num_units)))[0]), float(low),
                  float(high))
