"""MILVLG npz: a file an image.

`x` [n, F] (or [F, n], as openvqa has it), `bbox` [n, 4] xyxy pixels,
`num_bbox`, `image_h`, `image_w`. There are no classes.
"""

from typing import Any

import numpy as np

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import detections
from input_pipeline.region_files import folder
from input_pipeline.region_files import packed

GLOB = ''
ISOLATED = False
BOXES = 'xyxy in pixels'
CLASSES = classes.NONE


class Reader(folder.Reader):
  """A folder of `.npz` files."""
  ending = '.npz'

  def load(self, place: Any) -> contract.ImageRegions:
    values = packed.npz(self.read(place))
    shapes = [np.shape(values.get(name)) for name in ('x', 'bbox')]
    if all(len(shape) == 2 for shape in shapes) and (
        shapes[0][0] != shapes[1][0] == shapes[0][1]):
      self.found['features'] = 'transposed: [F, n] in the file'
      values['x'] = values['x'].T
    return detections.regions_of(
        place.removesuffix(self.ending), values, self.convention)
