"""What a trial's scores come to: recalls, ranks and chance.

Letters: I pictures and C captions of a trial, Q pictures that are queries.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import ranking


def measure(trial: protocols.Trial, text_to_image_CI: np.ndarray,
            image_to_text_CI: np.ndarray | None = None) -> dict[str, Any]:
  """Returns one language's cell of retrieval.json.

  Args:
    trial: queries and right answers.
    text_to_image_CI: scores that order the pictures of each caption.
    image_to_text_CI: scores that order the captions of each picture; the same
      matrix where None.

  Returns:
    `image_to_text` and `text_to_image` (see `ranking.metrics`; also the
    number of queries), `mean_recall`, `chance`, the mean recall of a random
    order, `num_images` and `num_captions`.
  """
  if image_to_text_CI is None:
    image_to_text_CI = text_to_image_CI
  queries_Q = trial.image_queries_Q
  image_to_text = ranking.metrics(
      image_to_text_CI.T[queries_Q], trial.is_right_CI.T[queries_Q])
  text_to_image = ranking.metrics(text_to_image_CI, trial.is_right_CI)
  num_captions, num_images = trial.is_right_CI.shape
  return {
      'image_to_text': image_to_text | {'num_queries': len(queries_Q)},
      'text_to_image': text_to_image | {'num_queries': num_captions},
      'mean_recall': ranking.mean_recall(image_to_text, text_to_image),
      'chance': ranking.mean_recall(
          image_to_text, text_to_image, prefix='chance_'),
      'num_images': num_images,
      'num_captions': num_captions,
  }


def average(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the mean of every number in the cells of a language's trials."""
  if len(cells) == 1:
    return cells[0]
  return {key: average([cell[key] for cell in cells])
          if isinstance(value, dict)
          else sum(cell[key] for cell in cells) / len(cells)
          for key, value in cells[0].items()}
