"""Ranks, recalls and their chance level from score matrices; NumPy alone.

Letters: Q queries, N candidates; C captions, I pictures of a trial.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from m3p_jax.evaluation import protocols

# K of the reported recalls R@K, and of nDCG@K.
RECALLS = (1, 5, 10)
NDCG_AT = 10
# Numbers compared at once.
_CHUNK = 2 ** 24


def best_ranks(scores_QN: np.ndarray, is_right_QN: np.ndarray) -> np.ndarray:
  """Returns int64 [Q], the rank (from 1) of each query's best right answer.

  A wrong candidate with the same score ranks before the right one, so a model
  that scores everything alike gains nothing; other right answers do not.
  Example: scores [[.9, .5, .5]] with the last one right give rank [3].

  Raises:
    ValueError: shapes differ, a score is NaN, or a query has no right answer.
  """
  scores_QN = np.asarray(scores_QN)
  is_right_QN = np.asarray(is_right_QN, bool)
  _check(scores_QN, is_right_QN)
  best_Q1 = np.where(is_right_QN, scores_QN, -np.inf).max(1, keepdims=True)
  return 1 + ((scores_QN >= best_Q1) & ~is_right_QN).sum(1)


def right_ranks(scores_QN: np.ndarray, is_right_QN: np.ndarray,
                ) -> tuple[np.ndarray, np.ndarray]:
  """Returns (query, rank) of every right answer, int64, best first.

  Wrong candidates with the same score rank before it, other right ones with a
  better score too. Example: scores [.9, .5, .5, .1] with the last three right
  give ranks [2, 3, 4].
  """
  query_P, candidate_P = np.nonzero(is_right_QN)
  score_P = scores_QN[query_P, candidate_P]
  order_P = np.lexsort((-score_P, query_P))
  query_P, score_P = query_P[order_P], score_P[order_P]
  # The number of right answers of the same query that come before.
  rank_P = 1 + np.arange(len(query_P)) - np.searchsorted(query_P, query_P)
  size = max(1, _CHUNK // max(1, scores_QN.shape[1]))
  for start in range(0, len(query_P), size):
    part = slice(start, start + size)
    rank_P[part] += ((scores_QN[query_P[part]] >= score_P[part, np.newaxis])
                     & ~is_right_QN[query_P[part]]).sum(1)
  return query_P, rank_P


def ndcg(scores_QN: np.ndarray, is_right_QN: np.ndarray, *,
         k: int = NDCG_AT) -> float:
  """Returns the mean nDCG@k in [0, 1]; every right answer gains 1.

  Σ 1/log₂(1 + rank) over the right answers in the top k, over the most that
  their number allows.
  Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation".
  """
  query_P, rank_P = right_ranks(scores_QN, is_right_QN)
  gain_P = np.where(rank_P <= k, 1.0 / np.log2(1.0 + rank_P), 0.0)
  gain_Q = np.bincount(query_P, gain_P, len(is_right_QN))
  best = np.cumsum(1.0 / np.log2(2.0 + np.arange(k)))
  return float((gain_Q / best[np.minimum(is_right_QN.sum(1), k) - 1]).mean())


def _check(scores_QN: np.ndarray, is_right_QN: np.ndarray) -> None:
  if scores_QN.ndim != 2 or scores_QN.shape != is_right_QN.shape:
    raise ValueError(
        f'scores have shape {scores_QN.shape}, right answers '
        f'{is_right_QN.shape}; both must be [queries, candidates]')
  if not scores_QN.shape[0]:
    raise ValueError('there is no query; at least one is needed')
  if np.isnan(scores_QN).any():
    query, candidate = np.argwhere(np.isnan(scores_QN))[0]
    raise ValueError(
        f'the score of query {query} and candidate {candidate} is NaN '
        f'({np.isnan(scores_QN).sum()} of {scores_QN.size} are); the weights '
        'or features that gave it are broken')
  if not is_right_QN.any(1).all():
    query = int(np.argmin(is_right_QN.any(1)))
    raise ValueError(f'query {query} has no right answer')


def chance_recall(num_right: int, num_candidates: int, k: int) -> float:
  """Returns the probability that one of `num_right` is in a random top k.

  1 − C(N−m, k) / C(N, k): exact, for m right answers among N candidates.
  """
  num_wrong = num_candidates - num_right
  if k > num_wrong:
    return 1.0
  return 1.0 - math.exp(sum(
      math.log1p(-num_right / (num_candidates - i)) for i in range(k)))


def metrics(scores_QN: np.ndarray, is_right_QN: np.ndarray, *,
            recalls: Sequence[int] = RECALLS) -> dict[str, float]:
  """Returns recalls in per cent, their chance, and rank statistics.

  Of several right answers the best ranked one counts; see `best_ranks` for
  errors.

  Returns:
    `r1` … (per cent), `chance_r1` … (per cent), `median_rank`, `mean_rank`
    (from 1), `mrr`, the mean reciprocal rank, and `ndcg10`, both in [0, 1].
  """
  ranks_Q = best_ranks(scores_QN, is_right_QN)
  num_candidates = scores_QN.shape[1]
  num_right, num_queries = np.unique(
      np.asarray(is_right_QN, bool).sum(1), return_counts=True)
  result = {f'r{k}': 100.0 * float((ranks_Q <= k).mean()) for k in recalls}
  for k in recalls:
    chance = sum(
        count * chance_recall(int(right), num_candidates, k)
        for right, count in zip(num_right, num_queries, strict=True))
    result[f'chance_r{k}'] = 100.0 * float(chance / len(ranks_Q))
  result['median_rank'] = float(np.median(ranks_Q))
  result['mean_rank'] = float(ranks_Q.mean())
  result['mrr'] = float((1.0 / ranks_Q).mean())
  result[f'ndcg{NDCG_AT}'] = ndcg(
      np.asarray(scores_QN), np.asarray(is_right_QN, bool))
  return result


def mean_recall(*directions: Mapping[str, float], prefix: str = '') -> float:
  """Returns mR: the mean of all recalls of all directions, in per cent.

  Of results of `metrics`; prefix 'chance_' averages the chance levels instead.
  """
  return float(np.mean([
      direction[f'{prefix}r{k}'] for direction in directions
      for k in RECALLS]))


def measure(trial: protocols.Trial, text_to_image_CI: np.ndarray,
            image_to_text_CI: np.ndarray | None = None) -> dict[str, Any]:
  """Returns one trial's results, as retrieval.json holds them.

  The first scores order the pictures of each caption, the second, the same
  where None, the captions of each picture.

  Returns:
    `image_to_text` and `text_to_image` (see `metrics`; also the number of
    queries), `mean_recall`, `chance`, the mean recall of a random order,
    `num_images` and `num_captions`.
  """
  if image_to_text_CI is None:
    image_to_text_CI = text_to_image_CI
  queries_Q = trial.image_queries_Q
  image_to_text = metrics(
      image_to_text_CI.T[queries_Q], trial.is_right_CI.T[queries_Q])
  text_to_image = metrics(text_to_image_CI, trial.is_right_CI)
  num_captions, num_images = trial.is_right_CI.shape
  return {
      'image_to_text': image_to_text | {'num_queries': len(queries_Q)},
      'text_to_image': text_to_image | {'num_queries': num_captions},
      'mean_recall': mean_recall(image_to_text, text_to_image),
      'chance': mean_recall(image_to_text, text_to_image, prefix='chance_'),
      'num_images': num_images,
      'num_captions': num_captions,
  }


def average(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the mean of every number in the results of a language's trials."""
  if len(trials) == 1:
    return trials[0]
  return {key: average([one[key] for one in trials])
          if isinstance(value, dict)
          else sum(one[key] for one in trials) / len(trials)
          for key, value in trials[0].items()}
