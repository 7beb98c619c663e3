"""What the regions of an image must be before they become a record."""

import numpy as np

from input_pipeline.region_files import contract

# (height, width) of images whose format has none.
UNKNOWN_SIZE = (1, 1)
SWAPPED = 'width and height were swapped'
# Detectors round their boxes: this much outside is cut off, in pixels.
_SLACK = 2.0
_SLACK_OF_ONE = 0.005
_MAX_SIDE = 2**20
_MAX_NAME = 1024


def check(regions: contract.ImageRegions,
          ) -> tuple[contract.ImageRegions, list[str]]:
  """Returns the regions as records take them, and what was put right.

  Boxes become float32 inside the image, in pixels; where the size is unknown,
  the image counts as 1×1. Features stay float16 or become float32.

  Raises:
    RowError: they cannot be used.
  """
  _check_name(regions.image_id)
  features_RF = _features(regions.features_RF)
  boxes_R4 = np.array(regions.boxes_R4, np.float32)
  class_ids_R = np.asarray(regions.class_ids_R)
  num_regions = len(features_RF)
  if boxes_R4.shape != (num_regions, 4) or class_ids_R.shape != (num_regions,):
    raise contract.RowError(
        'counts differ', f'{num_regions} features, boxes {boxes_R4.shape}, '
        f'classes {class_ids_R.shape}')
  if class_ids_R.min() < 0:
    raise contract.RowError('class out of range', f'{class_ids_R.min()}')
  notes = []
  has_size = bool(regions.height or regions.width)
  height, width = ((regions.height, regions.width) if has_size
                   else UNKNOWN_SIZE)
  if not (min(height, width) > 0 and max(height, width) <= _MAX_SIDE):
    raise contract.RowError('image size out of range', f'{width}×{height}')
  slack = _SLACK if has_size else _SLACK_OF_ONE
  if not _fits(boxes_R4, height, width, slack) and _fits(
      boxes_R4, width, height, slack):
    height, width = width, height
    notes.append(SWAPPED)
  _check_boxes(boxes_R4, height, width, slack)
  return contract.ImageRegions(
      regions.image_id, height, width,
      np.clip(boxes_R4, 0, np.array([width, height] * 2, np.float32)),
      features_RF, class_ids_R.astype(np.int32)), notes


def _check_name(name: str) -> None:
  if not name or len(name) > _MAX_NAME or not name.isprintable() or (
      '\ufffd' in name):
    raise contract.RowError('image id unfit', f'{name[:80]!r}')


def _features(features_RF: np.ndarray) -> np.ndarray:
  features_RF = np.asarray(features_RF)
  if features_RF.dtype != np.float16:
    with np.errstate(over='ignore'):
      features_RF = features_RF.astype(np.float32)
  if features_RF.ndim != 2 or not features_RF.size:
    raise contract.RowError('no features', f'shape {features_RF.shape}')
  if not np.isfinite(features_RF).all():
    raise contract.RowError(
        'features are not finite',
        f'{int((~np.isfinite(features_RF)).sum())} NaN or infinite')
  if np.abs(features_RF).max() > np.finfo(np.float16).max:
    raise contract.RowError(
        'features too large for float16', f'{np.abs(features_RF).max()}')
  return features_RF


def _fits(boxes_R4: np.ndarray, height: int, width: int, slack: float) -> bool:
  """Returns whether no box ends outside the image."""
  return bool((boxes_R4[:, 2:].max(axis=0) <= (
      width + slack, height + slack)).all())


def _check_boxes(boxes_R4: np.ndarray, height: int, width: int,
                 slack: float) -> None:
  """Raises RowError at a box that is none, or lies outside."""
  if not np.isfinite(boxes_R4).all():
    raise contract.RowError('boxes are not finite')
  if (boxes_R4[:, 2:] < boxes_R4[:, :2]).any():
    row = int((boxes_R4[:, 2:] < boxes_R4[:, :2]).any(axis=1).argmax())
    raise contract.RowError(
        'box ends before it begins', f'{boxes_R4[row].tolist()}')
  limits = np.array([width, height] * 2, np.float32)
  outside_R = ((boxes_R4 < -slack) | (boxes_R4 > limits + slack)).any(axis=1)
  if outside_R.any():
    raise contract.RowError(
        'box outside the image', f'{boxes_R4[int(outside_R.argmax())].tolist()}'
        f' in {width}×{height}')
