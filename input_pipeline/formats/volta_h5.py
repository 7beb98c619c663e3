"""VOLTA h5: a group an image, named by its id.

`features` [36, F], `boxes` [36, 4] xyxy pixels, `obj_id`, `obj_conf`,
`attr_id`, `attr_conf`, `img_w`, `img_h`. `obj_id` counts from 0 and has no
background.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

from input_pipeline import regions
from input_pipeline.regions import containers
from input_pipeline.regions import fields


class Reader(containers.H5Reader):
  """A file of one group an image."""
  classes = fields.FROM_ZERO

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._detections = fields.Detections(self.found)

  def entries(self) -> Iterator[regions.Entry]:
    for name in self.file:
      yield regions.Entry(name, name)

  def load(self, place: Any) -> regions.RegionSet:
    group = self.member(self.file, place)
    return self._detections.read(place, {
        name: self.read(self.dataset(group, name))
        for name in fields.NAMES if name in group})

  @staticmethod
  def where(place: Any) -> str:
    return f'group {place!r}'
