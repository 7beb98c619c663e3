"""What re-ranking only the first k costs and loses; pure NumPy.

Letters: C captions, I pictures, Q queries.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3p_jax.evaluation import measures
from m3p_jax.evaluation import rerank

_TOP_KS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 100, 200)
# Candidates that the agreement of two orders looks at.
_FIRST = 10


def curve(scores: Mapping[str, Sequence[rerank.Scores]], *, most: int,
          joint_weight: float) -> list[dict[str, Any]]:
  """Returns a point for each k: what it costs, and what it gives.

  Args:
    scores: {language: its trials}, with a match logit for each query's first
      `most` candidates; where every pair has one, the two stages are compared
      with the exact engine too.
    most: the largest k; the gallery is more than enough.
    joint_weight: see `rerank.reorder`.

  Returns:
    [{`top_k`; `pairs`, scored in both directions, each once; `pairs_share`, of
    all pairs in per cent; `mean_recall`, over languages}], from k = 0, the dual
    encoder alone; where every pair is scored also `agreement`, see there.
  """
  parts = [part for trials in scores.values() for part in trials]
  longest = max(max(part.dual_CI.shape) for part in parts)
  most = min(most, longest)
  total = sum(part.dual_CI.size for part in parts)
  is_exact = not any(np.isnan(part.match_CI).any() for part in parts)
  points = []
  for k in sorted({*(k for k in _TOP_KS if k < most), most}):
    pairs = sum(int(rerank.wanted_pairs(
        part.trial, part.dual_CI, k).sum()) for part in parts)
    point: dict[str, Any] = {
        'top_k': k, 'pairs': pairs, 'pairs_share': 100.0 * pairs / total,
        'mean_recall': float(np.mean([
            measures.average([rerank.measure(
                part, top_k=k, joint_weight=joint_weight)
                               for part in trials])['mean_recall']
            for trials in scores.values()]))}
    if is_exact:
      point['agreement'] = agreement(parts, top_k=k, joint_weight=joint_weight)
    points.append(point)
  return points


def agreement(parts: Sequence[rerank.Scores], *, top_k: int,
              joint_weight: float) -> dict[str, float]:
  """Returns how alike the two-stage and the exact order are, in per cent.

  `first`: queries whose first candidate is the same; `first10`: share of the
  exact engine's first ten that are among the two stages' first ten. Means over
  the queries of both directions. The exact order is that of the match logit.
  """
  same, shared = [], []
  for part in parts:
    queries_Q = part.trial.image_queries_Q
    final = rerank.final(part, top_k=top_k, joint_weight=joint_weight)
    for two_QN, exact_QN in ((final[0], part.match_CI),
                             (final[1].T[queries_Q],
                              part.match_CI.T[queries_Q])):
      left, right = (np.argsort(-x, axis=1, kind='stable')[:, :_FIRST]
                     for x in (two_QN, exact_QN))
      same.append(left[:, 0] == right[:, 0])
      shared.append((left[:, :, np.newaxis] == right[:, np.newaxis]).any(
          1).mean(1))
  return {'first': 100.0 * float(np.concatenate(same).mean()),
          'first10': 100.0 * float(np.concatenate(shared).mean())}
