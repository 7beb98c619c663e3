"""LXMERT TSV: ten columns, in another order than bottom-up attention's six.

`img_id`, `img_h`, `img_w`, `objects_id` (base64 of int64), `objects_conf`
(float32), `attrs_id`, `attrs_conf`, `num_boxes`, `boxes` (base64 of float32
n×4, xyxy pixels), `features` (base64 of float32 n×F). Height comes first.
"""

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import fields
from input_pipeline.region_files import tsv

GLOB = '*.tsv*'
ISOLATED = False
BOXES = 'xyxy in pixels'
CLASSES = classes.FROM_ZERO


class Reader(tsv.Reader):
  """A table of ten columns."""
  columns = ('img_id', 'img_h', 'img_w', 'objects_id', 'objects_conf',
             'attrs_id', 'attrs_conf', 'num_boxes', 'boxes', 'features')

  def decode(self, row: fields.Fields) -> contract.ImageRegions:
    boxes_R4, features_RF = tsv.boxes_and_features(row)
    objects_R = row.vector('objects_id', rows=len(boxes_R4))
    return contract.ImageRegions(
        row.text('img_id').strip(), row.whole('img_h'), row.whole('img_w'),
        boxes_R4, features_RF, classes.from_zero(objects_R))
