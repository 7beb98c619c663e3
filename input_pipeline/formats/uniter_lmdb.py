"""UNITER and UC2 image LMDB: key = name of an .npz, value = its arrays.

The value is msgpack (msgpack-numpy), or the bytes of an .npz where the folder
ends in `_compressed`: `features` float16 [n, F], `norm_bb` [n, 6 or 7] =
x1, y1, x2, y2, w, h (and area) in 0–1, `conf`, `soft_labels` [n, 1601] with
the background first. The image's size is not in it. Key `__keys__` is JSON;
`nbb_*.json` beside the folder counts regions, and is not needed.
"""

from typing import Any

import numpy as np

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import fields
from input_pipeline.region_files import lmdb_file
from input_pipeline.region_files import packed

GLOB = 'feat_*'
ISOLATED = True
BOXES = 'xyxy in 0–1; the image size is not in the format'
CLASSES = 'best of `soft_labels`, of which the first is the background'

# Visual Genome's classes; any other number is one more, for the background.
_WITHOUT_BACKGROUND = 1600


class Reader(lmdb_file.Reader):
  """An LMDB of msgpack or .npz values."""

  def image_id(self, key: bytes) -> str:
    return super().image_id(key).removesuffix('.npz')

  def load(self, place: Any) -> contract.ImageRegions:
    data = bytes(self.value(place))
    row = fields.Fields(
        packed.npz(data) if data[:2] == b'PK' else packed.msgpack(data))
    norm_RG = row.matrix('norm_bb')
    if norm_RG.shape[1] not in (4, 6, 7):
      raise contract.RowError(
          'norm_bb has a wrong shape',
          f'found {list(norm_RG.shape)}; allowed: [R, 6]')
    return contract.ImageRegions(
        self.image_id(place.encode('latin-1')), 0, 0,
        norm_RG[:, :4].astype(np.float32),
        row.matrix('features', rows=len(norm_RG)),
        _classes(row, len(norm_RG)))


def _classes(row: fields.Fields, num_regions: int) -> np.ndarray:
  """Returns int32 [R], never the background, as UNITER takes its targets."""
  if not row.has('soft_labels'):
    return classes.unknown(num_regions)
  labels_RC = row.matrix('soft_labels', rows=num_regions)
  if labels_RC.shape[1] not in (1, _WITHOUT_BACKGROUND):
    labels_RC = labels_RC[:, 1:]
  return classes.from_zero(labels_RC.argmax(axis=1))
