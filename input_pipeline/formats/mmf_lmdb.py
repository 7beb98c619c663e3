"""mmf LMDB: key = image id, value = a pickled dict.

`feature_path`, `features` [n, F], `image_height`, `image_width`, `num_boxes`,
`objects`, `cls_prob`, `bbox` [n, 4] xyxy pixels; the key `keys` lists the
others. Rows after `num_boxes` are padding.
"""

from typing import Any

from input_pipeline import regions
from input_pipeline.regions import containers
from input_pipeline.weights import pickles


class Reader(containers.LmdbReader):
  """An LMDB of pickled dicts."""

  def load(self, place: Any) -> regions.RegionSet:
    return self.detections.read(
        self.image_id(place), pickles.loads(self.value(place)))
