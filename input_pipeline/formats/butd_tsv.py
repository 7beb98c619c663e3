"""Bottom-up-attention TSV: six columns, a line an image, no header.

`image_id` (a number), `image_w`, `image_h`, `num_boxes`, `boxes` (base64 of
float32 n×4, xyxy pixels), `features` (base64 of float32 n×F). There are no
classes.
"""

import binascii
import pathlib

import numpy as np

from input_pipeline import errors
from input_pipeline import regions
from input_pipeline.regions import containers


class Reader(containers.TableReader):
  """A table of six columns."""
  columns = ('image_id', 'image_w', 'image_h', 'num_boxes', 'boxes', 'features')


class Writer(regions.Writer):
  """Writes such a table; classes are left out."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._file = open(path, 'wb')  # noqa: SIM115 — closed by `close`.

  def add(self, image: regions.RegionSet) -> None:
    name = image.image_id
    if any(c in name for c in '\t\r\n'):
      raise errors.UserError(f'the image id {name!r} does not fit in a TSV')
    arrays = (np.ascontiguousarray(array, '<f4')
              for array in (image.boxes_R4, image.features_RF))
    self._file.write(b'\t'.join([
        name.encode(), b'%d' % image.width, b'%d' % image.height,
        b'%d' % len(image.boxes_R4),
        *(binascii.b2a_base64(array.data, newline=False) for array in arrays),
    ]) + b'\n')

  def close(self) -> None:
    self._file.close()
