"""Re-ranking: the joint encoder orders the dual encoder's first k again.

What that costs and loses, and which k is best. Pure NumPy. Letters: C captions,
I pictures of one language's trial; Q queries, N candidates of one direction.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import ranking

# Points of the curve of two stages.
_TOP_KS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 100, 200)
# Candidates that the agreement of two orders looks at.
_FIRST = 10


class Scores(NamedTuple):
  """Scores of one trial: scale · cosine, and match logits (NaN = not scored).
  """
  trial: protocols.Trial
  dual_CI: np.ndarray
  match_CI: np.ndarray


@dataclasses.dataclass(frozen=True)
class Choice:
  """Settings chosen on a validation split, and the curves behind them."""
  top_k: int
  # Of the match logit; negative = the match logit alone.
  joint_weight: float
  # {top k: {joint weight: per cent, mean over languages}}.
  mean_recall: dict[int, dict[float, float]]

  @property
  def top_k_curve(self) -> dict[int, float]:
    """{top k: mR} at the chosen weight; 0 is the dual encoder alone."""
    return {k: row[self.joint_weight] for k, row in self.mean_recall.items()}

  @property
  def joint_weight_curve(self) -> dict[float, float]:
    """{joint weight: mR} at the largest top k.

    At the chosen one the curve may be flat: re-ranking a single candidate
    changes nothing, whatever its score.
    """
    return dict(self.mean_recall[max(self.mean_recall)])

  def to_json(self) -> dict[str, Any]:
    """Returns the content of `rerank_choice.json`."""
    return {
        'top_k': self.top_k, 'joint_weight': self.joint_weight,
        'top_k_curve': {str(k): v for k, v in self.top_k_curve.items()},
        'joint_weight_curve': {
            str(w): v for w, v in self.joint_weight_curve.items()},
        'mean_recall': {
            str(k): {str(w): v for w, v in row.items()}
            for k, row in self.mean_recall.items()}}


def is_candidate(dual_QN: np.ndarray, top_k: int) -> np.ndarray:
  """Returns bool [Q, N]: each query's `top_k` best; of equal ones the first."""
  order_QN = np.argsort(-dual_QN, axis=1, kind='stable')
  inside_QN = np.zeros(dual_QN.shape, bool)
  np.put_along_axis(inside_QN, order_QN[:, :top_k], True, axis=1)
  return inside_QN


def wanted_pairs(trial: protocols.Trial, dual_CI: np.ndarray,
                 top_k: int) -> np.ndarray:
  """Returns bool [C, I]: the pairs of both directions, each counted once."""
  wanted_CI = is_candidate(dual_CI, top_k)
  queries_Q = trial.image_queries_Q
  wanted_CI[:, queries_Q] |= is_candidate(dual_CI.T[queries_Q], top_k).T
  return wanted_CI


def reorder(dual_QN: np.ndarray, match_QN: np.ndarray, *, top_k: int,
            joint_weight: float) -> np.ndarray:
  """Returns float64 [Q, N] scores whose order is the re-ranked one.

  Candidates inside the top k score dual + joint_weight · match logit (the
  match logit alone where the weight is negative); those outside keep the dual
  encoder's order below all of them. `match_QN` is read inside the top k only.
  """
  dual_QN = dual_QN.astype(np.float64)
  if top_k == 0:
    return dual_QN
  inside_QN = is_candidate(dual_QN, top_k)
  final_QN = match_QN.astype(np.float64)
  if joint_weight >= 0:
    final_QN = dual_QN + joint_weight * final_QN
  lowest_Q1 = np.where(inside_QN, final_QN, np.inf).min(1, keepdims=True)
  # Subtracting one number a query keeps the order and the ties outside.
  highest_Q1 = np.where(inside_QN, -np.inf, dual_QN).max(1, keepdims=True)
  highest_Q1 = np.where(np.isfinite(highest_Q1), highest_Q1, 0.0)
  return np.where(inside_QN, final_QN, dual_QN - highest_Q1 + lowest_Q1 - 1.0)


def final(scores: Scores, *, top_k: int,
          joint_weight: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns the scores [C, I] that order the pictures, and the captions."""
  text_to_image_CI, image_to_text_CI = (
      reorder(dual, match, top_k=top_k, joint_weight=joint_weight)
      for dual, match in ((scores.dual_CI, scores.match_CI),
                          (scores.dual_CI.T, scores.match_CI.T)))
  return text_to_image_CI, image_to_text_CI.T


def measure(scores: Scores, *, top_k: int,
            joint_weight: float) -> dict[str, Any]:
  """Returns one trial's results, see `ranking.measure`."""
  return ranking.measure(
      scores.trial, *final(scores, top_k=top_k, joint_weight=joint_weight))


def choose(scores: Sequence[Scores], *, top_ks: Sequence[int],
           joint_weights: Sequence[float]) -> Choice:
  """Returns the top k and weight with the best mean recall over the trials.

  Of equal ones the smallest k and the weight named first win. k = 0, the dual
  encoder alone, is added to the curve.
  """
  top_ks = sorted({0, *map(int, top_ks)})
  table = {
      k: {float(weight): float(np.mean([
          measure(one, top_k=k, joint_weight=weight)['mean_recall']
          for one in scores])) for weight in joint_weights}
      for k in top_ks}
  top_k, joint_weight = max(
      ((k, weight) for k in top_ks if k for weight in table[k]),
      key=lambda pair: table[pair[0]][pair[1]])
  return Choice(top_k, joint_weight, table)


def curve(scores: Mapping[str, Sequence[Scores]], *, most: int,
          joint_weight: float) -> list[dict[str, Any]]:
  """Returns a point for each k up to `most`: what it costs, and what it gives.

  `scores` are each language's trials, with a match logit for each query's first
  `most` candidates; where every pair has one, the two stages are compared with
  the exact engine too.

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
    pairs = sum(int(wanted_pairs(
        part.trial, part.dual_CI, k).sum()) for part in parts)
    point: dict[str, Any] = {
        'top_k': k, 'pairs': pairs, 'pairs_share': 100.0 * pairs / total,
        'mean_recall': float(np.mean([
            ranking.average([measure(
                part, top_k=k, joint_weight=joint_weight)
                               for part in trials])['mean_recall']
            for trials in scores.values()]))}
    if is_exact:
      point['agreement'] = agreement(parts, top_k=k, joint_weight=joint_weight)
    points.append(point)
  return points


def agreement(parts: Sequence[Scores], *, top_k: int,
              joint_weight: float) -> dict[str, float]:
  """Returns how alike the two-stage and the exact order are, in per cent.

  `first`: queries whose first candidate is the same; `first10`: share of the
  exact engine's first ten that are among the two stages' first ten. Means over
  the queries of both directions. The exact order is that of the match logit.
  """
  same, shared = [], []
  for part in parts:
    queries_Q = part.trial.image_queries_Q
    text_to_image_CI, image_to_text_CI = final(
        part, top_k=top_k, joint_weight=joint_weight)
    for two_QN, exact_QN in ((text_to_image_CI, part.match_CI),
                             (image_to_text_CI.T[queries_Q],
                              part.match_CI.T[queries_Q])):
      left, right = (np.argsort(-x, axis=1, kind='stable')[:, :_FIRST]
                     for x in (two_QN, exact_QN))
      same.append(left[:, 0] == right[:, 0])
      shared.append((left[:, :, np.newaxis] == right[:, np.newaxis]).any(
          1).mean(1))
  return {'first': 100.0 * float(np.concatenate(same).mean()),
          'first10': 100.0 * float(np.concatenate(shared).mean())}
