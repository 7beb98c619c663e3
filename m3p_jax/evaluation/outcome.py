"""What an evaluation finds, before it is written anywhere.

Letters: I pictures, C captions of one language.
"""

from typing import Any, NamedTuple

import numpy as np

from m3p_jax.evaluation import statistics


class Outcome(NamedTuple):
  """What one evaluation found.

  Attributes:
    languages: language → cell of retrieval.json.
    text_to_image: language → [C, I] scores that order the pictures; NaN where
      no trial asks.
    queries: language → the rank of every query.
    curve: see `two_stage.curve`; empty for the dual encoder.
    pairs_scored: pairs that the joint encoder saw.
    seconds: of computing, compilation included.
  """
  languages: dict[str, dict[str, Any]]
  text_to_image: dict[str, np.ndarray]
  queries: dict[str, dict[str, statistics.Queries]]
  curve: list[dict[str, Any]]
  pairs_scored: int
  seconds: float
