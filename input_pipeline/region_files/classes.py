"""Detector classes as the model has them: 0 is the background.

Detectors count their classes from 0 with or without a background among them,
and files seldom say which.
"""

import numpy as np

from input_pipeline.region_files import contract

NONE = 'none in the format: every region has class 0, which is never masked'
# Visual Genome's 1,600 classes and the background.
_WITH_BACKGROUND = 1601
FROM_ZERO = 'class + 1, since the file counts from 0 without a background'


def unknown(num_regions: int) -> np.ndarray:
  """Returns int32 [R] zeros."""
  return np.zeros(num_regions, np.int32)


def from_zero(classes_R: np.ndarray) -> np.ndarray:
  """Returns int32 [R] of classes counted from 0; −1 stands for none.

  Raises:
    RowError: a class below −1, or beyond 32 bits.
  """
  if classes_R.min() < -1 or classes_R.max() >= 2**31 - 1:
    raise contract.RowError(
        'class out of range', f'{classes_R.min()} to {classes_R.max()}')
  return (classes_R + 1).astype(np.int32)


class Convention:
  """Whether a file's `objects` count the background, told by `cls_prob`.

  Source: mmf, extract_features_vmb.py: with --background the scores keep their
  first column and `objects` are argmax over all of them, so 0 = background;
  without, argmax over the others, so 0 is the first class.
  """

  def __init__(self, found: dict[str, str]):
    """Args: `found` is where the decision is written in words."""
    self._shift: int | None = None
    self._found = found

  def apply(self, objects_R: np.ndarray,
            scores_RC: np.ndarray | None) -> np.ndarray:
    """Returns int32 [R] class ids.

    Args:
      objects_R: [R], the file's classes.
      scores_RC: [R, C] scores of the classes, where the file has them.

    Raises:
      RowError: the scores tell otherwise than those of the images before.
    """
    told = None if scores_RC is None else _shift(objects_R, scores_RC)
    if self._shift is None:
      self._shift = told
    elif told not in (None, self._shift):
      raise contract.RowError(
          'classes are counted differently',
          f'objects {objects_R[:3].tolist()}, unlike the images before')
    shift = self._shift
    if shift is None:
      shift = 1  # The extraction script's default.
    self._found['class_ids'] = (
        FROM_ZERO if shift else 'as in the file, where 0 is the background')
    return from_zero(objects_R - 1 + shift)


def _shift(objects_R: np.ndarray, scores_RC: np.ndarray) -> int | None:
  """Returns what to add to `objects`, 0 or 1; None where scores do not tell."""
  num_classes = scores_RC.shape[1]
  if num_classes < 2:
    return None
  best_R = scores_RC.argmax(axis=1)
  if (objects_R == best_R).all():
    return 0 if num_classes == _WITH_BACKGROUND else 1
  if (objects_R == best_R + 1).all():
    return 0
  if (objects_R == scores_RC[:, 1:].argmax(axis=1)).all():
    return 1
  return None
