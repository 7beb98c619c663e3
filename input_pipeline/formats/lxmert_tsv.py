"""LXMERT TSV: ten columns, in another order than bottom-up attention's six.

`img_id`, `img_h`, `img_w`, `objects_id` (base64 of int64), `objects_conf`
(float32), `attrs_id`, `attrs_conf`, `num_boxes`, `boxes` (base64 of float32
n×4, xyxy pixels), `features` (base64 of float32 n×F). Height comes first.
"""

from typing import Any

from input_pipeline import regions
from input_pipeline.regions import containers
from input_pipeline.regions import fields


class Reader(containers.TableReader):
  """A table of ten columns."""
  classes = fields.FROM_ZERO
  columns = ('img_id', 'img_h', 'img_w', 'objects_id', 'objects_conf',
             'attrs_id', 'attrs_conf', 'num_boxes', 'boxes', 'features')

  def load(self, place: Any) -> regions.RegionSet:
    row = self.fields(place)
    count = row.whole('num_boxes')
    return regions.RegionSet(
        boxes_R4=row.matrix('boxes', rows=count, columns=4),
        features_RF=row.matrix('features', rows=count),
        class_ids_R=fields.from_zero(row.vector('objects_id', rows=count)),
        height=row.whole('img_h'), width=row.whole('img_w'),
        image_id=row.text('img_id').strip())
