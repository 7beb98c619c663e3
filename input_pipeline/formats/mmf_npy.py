"""mmf npy pairs: `<stem>.npy` and `<stem>_info.npy` for each image.

The first holds float32 [100, F]; the second a pickled dict `bbox` [100, 4]
xyxy pixels, `num_boxes` (rows after it are padding), `objects`, `cls_prob`,
`image_width`, `image_height`. mmf cuts an image's name at its first dot.
"""

from typing import Any

from input_pipeline import regions
from input_pipeline.regions import containers

_INFO = '_info.npy'


class Reader(containers.FolderReader):
  """A folder of pairs."""
  ending = '.npy'

  def is_image(self, name: str) -> bool:
    return not name.endswith(_INFO)

  def load(self, place: Any) -> regions.RegionSet:
    stem = place.removesuffix(self.ending)
    values = containers.unpack_npy(self.read(stem + _INFO))
    if not isinstance(values, dict):
      raise regions.RowError(
          'not a record', f'{stem}{_INFO} holds {type(values).__name__}')
    features_RF = containers.unpack_npy(self.read(place))
    return self.detections.read(stem, values | {'features': features_RF})
