"""Bottom-up-attention TSV: six columns, a line an image, no header.

`image_id` (a number), `image_w`, `image_h`, `num_boxes`, `boxes` (base64 of
float32 n×4, xyxy pixels), `features` (base64 of float32 n×F). There are no
classes.
"""

import binascii

import numpy as np

from input_pipeline import errors
from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import fields
from input_pipeline.region_files import tsv

GLOB = '*.tsv*'
ISOLATED = False
BOXES = 'xyxy in pixels'
CLASSES = classes.NONE


class Reader(tsv.Reader):
  """A table of six columns."""
  columns = ('image_id', 'image_w', 'image_h', 'num_boxes', 'boxes', 'features')

  def decode(self, row: fields.Fields) -> contract.ImageRegions:
    boxes_R4, features_RF = tsv.boxes_and_features(row)
    return contract.ImageRegions(
        row.text('image_id').strip(), row.whole('image_h'),
        row.whole('image_w'), boxes_R4, features_RF,
        classes.unknown(len(boxes_R4)))


class Writer(contract.Writer):
  """Writes such a table; classes are left out."""

  def __init__(self, path):
    super().__init__(path)
    self._file = open(path, 'wb')  # noqa: SIM115 — closed by `close`.

  def add(self, regions: contract.ImageRegions) -> None:
    name = regions.image_id
    if any(c in name for c in '\t\r\n'):
      raise errors.UserError(f'the image id {name!r} does not fit in a TSV')
    arrays = (np.ascontiguousarray(array, '<f4')
              for array in (regions.boxes_R4, regions.features_RF))
    self._file.write(b'\t'.join([
        name.encode(), b'%d' % regions.width, b'%d' % regions.height,
        b'%d' % len(regions.boxes_R4),
        *(binascii.b2a_base64(array.data, newline=False) for array in arrays),
    ]) + b'\n')

  def close(self) -> None:
    self._file.close()
