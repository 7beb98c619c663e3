"""LXMERT TSV: ten columns, in another order than bottom-up attention's six.

`img_id`, `img_h`, `img_w`, `objects_id` (base64 of int64), `objects_conf`
(float32), `attrs_id`, `attrs_conf`, `num_boxes`, `boxes` (base64 of float32
n×4, xyxy pixels), `features` (base64 of float32 n×F). Height comes first.
"""

import numpy as np

from input_pipeline.regions import containers
from input_pipeline.regions import fields


class Reader(containers.TableReader):
  """A table of ten columns."""
  classes = fields.FROM_ZERO
  columns = ('img_id', 'img_h', 'img_w', 'objects_id', 'objects_conf',
             'attrs_id', 'attrs_conf', 'num_boxes', 'boxes', 'features')
  prefix = 'img'

  def class_ids(self, row: fields.Fields, count: int) -> np.ndarray:
    return fields.from_zero(row.vector('objects_id', rows=count))
