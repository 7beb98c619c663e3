"""Oscar .pt: a PyTorch dict, image id → [n, F + 6].

The last six numbers are the box and its size, x1, y1, x2, y2, w, h in 0–1; the
2,048 before them are the feature. There are no classes and no image sizes.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

from input_pipeline import errors
from input_pipeline import regions
from input_pipeline.regions import fields
from input_pipeline.weights import pickles

_NUM_BOX = 6


class Reader(regions.Reader):
  """A file of all images; each is read when it is asked for."""
  glob = '*.pt'
  boxes = 'xyxy in 0–1; the image size is not in the format'

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    tensors = pickles.load_torch(path)
    if not isinstance(tensors, dict):
      raise errors.UserError(
          f'{path} holds {type(tensors).__name__}; allowed: a dict, '
          'image id → tensor')
    self._values = list(tensors.items())

  def entries(self) -> Iterator[regions.Entry]:
    for row, (name, _) in enumerate(self._values):
      yield regions.Entry(str(name), row)

  def load(self, place: Any) -> regions.RegionSet:
    name, value = self._values[place]
    together = fields.Fields({'tensor': value}).matrix('tensor')
    if together.shape[1] <= _NUM_BOX:
      raise regions.RowError(
          'tensor has a wrong shape',
          f'found {list(together.shape)}; allowed: [n, F + {_NUM_BOX}]')
    return regions.RegionSet(
        together[:, :-_NUM_BOX], together[:, -_NUM_BOX:][:, :4],
        fields.no_classes(len(together)), 0, 0, str(name))

  @staticmethod
  def where(place: Any) -> str:
    return f'item {place + 1}'
