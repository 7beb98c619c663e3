"""mmf LMDB: key = image id, value = a pickled dict.

`feature_path`, `features` [n, F], `image_height`, `image_width`, `num_boxes`,
`objects`, `cls_prob`, `bbox` [n, 4] xyxy pixels; the key `keys` lists the
others. Rows after `num_boxes` are padding.
"""

import pathlib
from typing import Any

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import detections
from input_pipeline.region_files import lmdb_file
from input_pipeline.weights import pickles

GLOB = '*.lmdb'
ISOLATED = True
BOXES = 'xyxy in pixels'
CLASSES = classes.FROM_ZERO + ', unless `cls_prob` tells otherwise'


class Reader(lmdb_file.Reader):
  """An LMDB of pickled dicts."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._convention = classes.Convention(self.found)

  def load(self, place: Any) -> contract.ImageRegions:
    name = self.image_id(place.encode('latin-1'))
    return detections.regions_of(
        name, pickles.loads(bytes(self.value(place))), self._convention)
