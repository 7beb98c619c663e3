"""MILVLG npz: a file an image.

`x` [n, F] (or [F, n], as openvqa has it), `bbox` [n, 4] xyxy pixels,
`num_bbox`, `image_h`, `image_w`. There are no classes.
"""

from typing import Any

import numpy as np

from input_pipeline import regions
from input_pipeline.regions import containers


class Reader(containers.FolderReader):
  """A folder of `.npz` files."""
  classes = regions.Reader.classes
  ending = '.npz'

  def load(self, place: Any) -> regions.RegionSet:
    values = containers.unpack_npz(self.read(place))
    shapes = [np.shape(values.get(name)) for name in ('x', 'bbox')]
    if all(len(shape) == 2 for shape in shapes) and (
        shapes[0][0] != shapes[1][0] == shapes[0][1]):
      self.found['features'] = 'transposed: [F, n] in the file'
      values['x'] = values['x'].T
    return self.detections.read(place.removesuffix(self.ending), values)
