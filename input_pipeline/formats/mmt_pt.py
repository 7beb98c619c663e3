"""MMT .pt: a file an image, written by `torch.save`.

A dict of tensors or arrays: `features` [n, F], `boxes` [n, 4] xyxy pixels,
`num_boxes` (rows after it are padding), `objects`, `cls_prob`, `img_w`,
`img_h`.
"""

from typing import Any

from input_pipeline import regions
from input_pipeline.regions import containers
from input_pipeline.weights import pickles


class Reader(containers.FolderReader):
  """A folder of `.pt` files."""
  ending = '.pt'

  def load(self, place: Any) -> regions.RegionSet:
    return self.detections.read(
        place.removesuffix(self.ending), pickles.load_torch(self.path / place))
