"""MMT .pt: a file an image, written by `torch.save`.

A dict of tensors or arrays: `features` [n, F], `boxes` [n, 4] xyxy pixels,
`num_boxes` (rows after it are padding), `objects`, `cls_prob`, `img_w`,
`img_h`.
"""

from typing import Any

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import detections
from input_pipeline.region_files import folder
from input_pipeline.weights import torch_file

GLOB = ''
ISOLATED = False
BOXES = 'xyxy in pixels'
CLASSES = classes.FROM_ZERO + ', unless `cls_prob` tells otherwise'


class Reader(folder.Reader):
  """A folder of `.pt` files."""
  ending = '.pt'

  def load(self, place: Any) -> contract.ImageRegions:
    return detections.regions_of(
        place.removesuffix(self.ending), torch_file.load(self.path / place),
        self.convention)
