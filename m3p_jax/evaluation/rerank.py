"""Re-ranking: the joint encoder orders the dual encoder's first k again.

Pure NumPy. Letters: C captions, I pictures of one language's trial; Q queries,
N candidates of one direction.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from m3p_jax.evaluation import measures
from m3p_jax.evaluation import protocols


class Scores(NamedTuple):
  """What one language's re-ranking is computed from.

  Attributes:
    trial: queries and right answers.
    dual_CI: float32, the dual encoder's logits (scale · cosine).
    match_CI: float32, the joint encoder's logits; NaN where not scored.
  """
  trial: protocols.Trial
  dual_CI: np.ndarray
  match_CI: np.ndarray


@dataclasses.dataclass(frozen=True)
class Choice:
  """Settings chosen on a validation split, and the curves behind them.

  Attributes:
    top_k: candidates that are re-ranked.
    joint_weight: of the match logit; negative = the match logit alone.
    mean_recall: {top k: {joint weight: mR in per cent, mean over languages}}.
  """
  top_k: int
  joint_weight: float
  mean_recall: dict[int, dict[float, float]]

  @property
  def top_k_curve(self) -> dict[int, float]:
    """{top k: mR} at the chosen weight; 0 is the dual encoder alone."""
    return {k: row[self.joint_weight] for k, row in self.mean_recall.items()}

  @property
  def joint_weight_curve(self) -> dict[float, float]:
    """{joint weight: mR} at the largest top k.

    At the chosen one the curve may be flat by construction: re-ranking a
    single candidate changes nothing, whatever its score.
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
  encoder's order below all of them.

  Args:
    dual_QN: the dual encoder's logits.
    match_QN: the joint encoder's; read inside the top k only.
    top_k: candidates that are re-ranked; 0 = the dual order.
    joint_weight: of the match logit.
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
  """Returns the scores [C, I] that order the pictures, and the captions.

  Args:
    scores: with a match logit for every pair inside the top k.
    top_k: candidates that are re-ranked.
    joint_weight: of the match logit; negative = the match logit alone.
  """
  text_to_image_CI, image_to_text_CI = (
      reorder(dual, match, top_k=top_k, joint_weight=joint_weight)
      for dual, match in ((scores.dual_CI, scores.match_CI),
                          (scores.dual_CI.T, scores.match_CI.T)))
  return text_to_image_CI, image_to_text_CI.T


def measure(scores: Scores, *, top_k: int,
            joint_weight: float) -> dict[str, Any]:
  """Returns one language's cell of retrieval.json; arguments as `final`."""
  return measures.measure(
      scores.trial, *final(scores, top_k=top_k, joint_weight=joint_weight))


def choose(scores: dict[str, Scores], *, top_ks, joint_weights) -> Choice:
  """Returns the top k and weight with the best mean recall over languages.

  Of equal ones the smallest k and the weight named first win.

  Args:
    scores: by language, with match logits for the largest k.
    top_ks: candidates to try; 0 (the dual encoder alone) is added.
    joint_weights: weights to try.
  """
  top_ks = sorted({0, *map(int, top_ks)})
  table = {
      k: {float(weight): float(np.mean([
          measure(one, top_k=k, joint_weight=weight)['mean_recall']
          for one in scores.values()])) for weight in joint_weights}
      for k in top_ks}
  top_k, joint_weight = max(
      ((k, weight) for k in top_ks if k for weight in table[k]),
      key=lambda pair: table[pair[0]][pair[1]])
  return Choice(top_k, joint_weight, table)
