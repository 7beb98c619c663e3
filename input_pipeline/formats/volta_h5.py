"""VOLTA h5: a group an image, named by its id.

`features` [36, F], `boxes` [36, 4] xyxy pixels, `obj_id`, `obj_conf`,
`attr_id`, `attr_conf`, `img_w`, `img_h`. `obj_id` counts from 0 and has no
background.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import detections
from input_pipeline.region_files import h5_file

GLOB = '*.h5'
ISOLATED = True
BOXES = 'xyxy in pixels'
CLASSES = classes.FROM_ZERO

class Reader(contract.Reader):
  """A file of one group an image."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._file = h5_file.open_file(path)
    self._convention = classes.Convention(self.found)

  def entries(self) -> Iterator[contract.Entry]:
    for name in self._file:
      yield contract.Entry(name, name)

  def load(self, place: Any) -> contract.ImageRegions:
    group = h5_file.child(self._file, place)
    values = {name: h5_file.read(h5_file.dataset(group, name))
              for name in detections.NAMES if name in group}
    return detections.regions_of(place, values, self._convention)

  @staticmethod
  def where(place: Any) -> str:
    return f'group {place!r}'

  def close(self) -> None:
    self._file.close()
