"""The fields that detection scripts write: mmf's, VOLTA's, MMT's, MILVLG's."""

from typing import Any

import numpy as np

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import fields

# Every script and patch has names of its own; one of them is a slip of VOLTA's.
_BOXES = ('bbox', 'boxes')
_FEATURES = ('features', 'x')
_COUNT = ('num_boxes', 'num_bbox')
_HEIGHT = ('image_height', 'image_h', 'img_h')
_WIDTH = ('image_width', 'image_w', 'img_w', 'iimage_width')
NAMES = (*_BOXES, *_FEATURES, *_COUNT, *_HEIGHT, *_WIDTH, 'obj_id', 'objects',
         'cls_prob')


def regions_of(name: str, values: Any, convention: classes.Convention,
               ) -> contract.ImageRegions:
  """Returns the regions of an image, without the padding after the count.

  Args:
    name: of the image.
    values: the dict of the file; arrays, or base64 of them.
    convention: of its classes.

  Raises:
    RowError: a field is missing, or does not fit the others.
  """
  row = fields.Fields(values)
  boxes_R4 = row.matrix(*_BOXES, columns=4)
  features_RF = row.matrix(*_FEATURES, rows=len(boxes_R4))
  count = row.whole(*_COUNT) if row.has(*_COUNT) else len(boxes_R4)
  if not 0 < count <= len(boxes_R4):
    raise contract.RowError(
        'num_boxes does not fit', f'found {count} for {len(boxes_R4)} boxes')
  return contract.ImageRegions(
      name, row.whole(*_HEIGHT), row.whole(*_WIDTH), boxes_R4[:count],
      features_RF[:count], _classes(row, len(boxes_R4), count, convention))


def _classes(row: fields.Fields, num_rows: int, count: int,
             convention: classes.Convention) -> np.ndarray:
  """Returns int32 [count] of `num_rows` with padding."""
  if row.has('obj_id'):
    return classes.from_zero(row.vector('obj_id', rows=num_rows)[:count])
  if not row.has('objects'):
    return classes.unknown(count)
  scores_RC = (row.matrix('cls_prob', rows=num_rows)[:count]
               if row.has('cls_prob') else None)
  return convention.apply(
      row.vector('objects', rows=num_rows)[:count], scores_RC)
