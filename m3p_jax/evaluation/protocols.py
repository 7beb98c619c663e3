"""Retrieval protocols: which queries are asked, of what, and what is right.

A protocol is a function (num_images, right picture sets) → `Trial`. Letters:
I pictures, C distinct captions of one language, Q pictures that are queries.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import errors
from m3p_jax.evaluation import ranking

DIRECTIONS = ('text_to_image', 'image_to_text')


class Trial(NamedTuple):
  """One language's queries and right answers.

  Attributes:
    is_right_CI: bool, whether the picture answers the caption (and reverse).
    image_queries_Q: int, the pictures that are asked for their captions.
  """
  is_right_CI: np.ndarray
  image_queries_Q: np.ndarray


def tux_paint(num_images: int, groups: Sequence[Collection[int]]) -> Trial:
  """Returns the trial of protocol `tux-paint`.

  Text → image: the distinct captions of a language against all pictures of
  the split. Image → text: the pictures that have a caption in it, against
  those captions. Every member of a group is a right answer.

  Args:
    num_images: pictures in the split.
    groups: for each distinct caption, the pictures it is right for.

  Raises:
    ValueError: a caption has no picture, or there are no captions.
  """
  if not groups:
    raise ValueError('there are no captions to ask for')
  is_right_CI = np.zeros((len(groups), num_images), bool)
  for caption, pictures in enumerate(groups):
    is_right_CI[caption, list(pictures)] = True
  if not is_right_CI.any(1).all():
    raise ValueError(
        f'caption {int(np.argmin(is_right_CI.any(1)))} has no picture')
  return Trial(is_right_CI, np.flatnonzero(is_right_CI.any(0)))


PROTOCOLS = {'tux-paint': tux_paint}


def get(name: str):
  """Returns the protocol called `name`.

  Raises:
    UserError: there is none.
  """
  if name not in PROTOCOLS:
    raise errors.UserError(
        f'config.evaluation.protocol is {name!r}; allowed: '
        f'{", ".join(PROTOCOLS)}')
  return PROTOCOLS[name]


def measure(trial: Trial, text_to_image_CI: np.ndarray,
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
