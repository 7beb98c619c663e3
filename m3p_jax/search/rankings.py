"""Orders a collection's pictures for one query, in stages.

Letters: I pictures.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import NamedTuple

import numpy as np

from m3p_jax.evaluation import rerank

MODES = ('dual', 'rerank', 'joint')
# Pictures that the joint encoder takes at a time where it looks at all: other
# queries are answered in between.
CHUNK = 16

# From numbers of pictures to the joint encoder's match logits.
Match = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the joint encoder re-ranks; see `config.evaluation`."""
  top_k: int = 20
  joint_weight: float = -1.0  # Negative = the match logit alone.


class Ranking(NamedTuple):
  """Scores of all pictures; the last of a query's rankings is final."""
  score_I: np.ndarray  # What orders the pictures.
  cosine_I: np.ndarray
  match_I: np.ndarray  # NaN where the joint encoder has not looked.
  seen: int  # Pictures that the joint encoder has looked at.
  wanted: int  # Pictures that it will have looked at in the end.

  def best(self, k: int) -> np.ndarray:
    """Returns the numbers of k pictures, best first; of equal ones the first.

    Without sorting the others, which may be millions.
    """
    count = len(self.score_I)
    chosen = np.arange(count)
    if 0 < k < count:
      least = np.partition(self.score_I, count - k)[count - k]
      chosen = np.flatnonzero(self.score_I >= least)
    return chosen[np.argsort(-self.score_I[chosen], kind='stable')][:k]


def stages(cosine_I: np.ndarray, match: Match, *, mode: str,
           logit_scale: float, settings: Settings) -> Iterator[Ranking]:
  """Yields the dual encoder's ranking, then what the joint encoder makes of it.

  Mode 'dual' ends there; 'rerank' re-ranks the first `settings.top_k` and
  'joint' every picture, best cosines first, by the match logit alone.
  """
  count = len(cosine_I)
  match_I = np.full(count, np.nan, np.float32)
  wanted, weight = {
      'dual': (0, 0.0), 'joint': (count, -1.0),
      'rerank': (min(settings.top_k, count), settings.joint_weight)}[mode]
  first = Ranking(cosine_I, cosine_I, match_I, 0, wanted)
  yield first
  # With the best of those that will stay outside.
  order_N = first.best(wanted + 1) if wanted else np.arange(0)
  dual_I = logit_scale * cosine_I.astype(np.float64)
  dual_N = dual_I[order_N]
  step = CHUNK if mode == 'joint' else max(wanted, 1)
  for seen in range(0, wanted, step):
    chosen = order_N[seen:min(seen + step, wanted)]
    match_I = match_I.copy()
    match_I[chosen] = match(chosen)
    seen += len(chosen)
    score_QN = rerank.reorder(dual_N[None], match_I[None, order_N],
                              top_k=seen, joint_weight=weight)
    # The rest keeps its distance to the best of those outside.
    score_I = dual_I + (score_QN[0, -1] - dual_N[-1])
    score_I[order_N] = score_QN[0]
    yield Ranking(score_I, cosine_I, match_I, seen, wanted)


def probability(logit: float) -> float | None:
  """Returns the logistic function of a match logit, None of NaN."""
  if np.isnan(logit):
    return None
  return float(np.exp(-np.logaddexp(0.0, -np.float64(logit))))
