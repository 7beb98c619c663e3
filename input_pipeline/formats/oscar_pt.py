"""Oscar .pt: a PyTorch dict, image id → [n, F + 6].

The last six numbers are the box and its size, x1, y1, x2, y2, w, h in 0–1; the
2,048 before them are the feature. There are no classes and no image sizes.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import fields
from input_pipeline.weights import torch_file

GLOB = '*.pt'
ISOLATED = False
BOXES = 'xyxy in 0–1; the image size is not in the format'
CLASSES = classes.NONE

_NUM_BOX = 6


class Reader(contract.Reader):
  """A file of all images; each is read when it is asked for."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    tensors = torch_file.load(path)
    if not isinstance(tensors, dict):
      raise errors.UserError(
          f'{path} holds {type(tensors).__name__}; allowed: a dict, '
          'image id → tensor')
    # In order; ids may be numbers, which JSON's keys cannot tell from text.
    self._values = list(tensors.items())

  def entries(self) -> Iterator[contract.Entry]:
    for row, (name, _) in enumerate(self._values):
      yield contract.Entry(str(name), row)

  def load(self, place: Any) -> contract.ImageRegions:
    name, value = self._values[place]
    together = fields.Fields({'tensor': value}).matrix('tensor')
    if together.shape[1] <= _NUM_BOX:
      raise contract.RowError(
          'tensor has a wrong shape',
          f'found {list(together.shape)}; allowed: [n, F + {_NUM_BOX}]')
    return contract.ImageRegions(
        str(name), 0, 0, together[:, -_NUM_BOX:][:, :4].astype(np.float32),
        together[:, :-_NUM_BOX], classes.unknown(len(together)))

  @staticmethod
  def where(place: Any) -> str:
    return f'item {place + 1}'
