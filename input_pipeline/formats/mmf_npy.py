"""mmf npy pairs: `<stem>.npy` and `<stem>_info.npy` for each image.

The first holds float32 [100, F]; the second a pickled dict `bbox` [100, 4]
xyxy pixels, `num_boxes` (rows after it are padding), `objects`, `cls_prob`,
`image_width`, `image_height`. mmf cuts an image's name at its first dot.
"""

import pathlib
from typing import Any

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import detections
from input_pipeline.region_files import folder
from input_pipeline.region_files import packed

GLOB = ''
ISOLATED = False
BOXES = 'xyxy in pixels'
CLASSES = classes.FROM_ZERO + ', unless `cls_prob` tells otherwise'

_INFO = '_info.npy'


class Reader(folder.Reader):
  """A folder of pairs."""
  ending = '.npy'

  def is_image(self, path: pathlib.Path) -> bool:
    return not path.name.endswith(_INFO) and super().is_image(path)

  def load(self, place: Any) -> contract.ImageRegions:
    stem = place.removesuffix(self.ending)
    values = packed.npy(self.read(stem + _INFO))
    if not isinstance(values, dict):
      raise contract.RowError(
          'not a record', f'{stem}{_INFO} holds {type(values).__name__}')
    return detections.regions_of(
        stem, values | {'features': packed.npy(self.read(place))},
        self.convention)
