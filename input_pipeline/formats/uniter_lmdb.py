"""UNITER and UC2 image LMDB: key = name of an .npz, value = its arrays.

The value is msgpack (msgpack-numpy), or the bytes of an .npz where the folder
ends in `_compressed`: `features` float16 [n, F], `norm_bb` [n, 6 or 7] =
x1, y1, x2, y2, w, h (and area) in 0–1, `conf`, `soft_labels` [n, 1601] with
the background first. The image's size is not in it. Key `__keys__` is JSON;
`nbb_*.json` beside the folder counts regions, and is not needed.
"""

from typing import Any

import numpy as np

from input_pipeline import regions
from input_pipeline.regions import containers
from input_pipeline.regions import fields

# Visual Genome's classes; any other number is one more, for the background.
_WITHOUT_BACKGROUND = 1600


class Reader(containers.LmdbReader):
  """An LMDB of msgpack or .npz values."""
  glob = 'feat_*'
  boxes = 'xyxy in 0–1; the image size is not in the format'
  classes = 'best of `soft_labels`, of which the first is the background'

  def image_id(self, key: bytes) -> str:
    return super().image_id(key).removesuffix('.npz')

  def load(self, place: Any) -> regions.RegionSet:
    data = self.value(place)
    row = fields.Fields(
        containers.unpack_npz(data) if data[:2] == b'PK'
        else containers.unpack_msgpack(data))
    norm_RG = row.matrix('norm_bb')
    if norm_RG.shape[1] not in (4, 6, 7):
      raise regions.RowError(
          'norm_bb has a wrong shape',
          f'found {list(norm_RG.shape)}; allowed: [R, 6]')
    return regions.RegionSet(
        row.matrix('features', rows=len(norm_RG)), norm_RG[:, :4],
        _classes(row, len(norm_RG)), 0, 0, self.image_id(place))


def _classes(row: fields.Fields, num_regions: int) -> np.ndarray:
  """Returns int32 [R], never the background, as UNITER takes its targets."""
  if not row.has('soft_labels'):
    return fields.no_classes(num_regions)
  labels_RC = row.matrix('soft_labels', rows=num_regions)
  if labels_RC.shape[1] not in (1, _WITHOUT_BACKGROUND):
    labels_RC = labels_RC[:, 1:]
  return fields.from_zero(labels_RC.argmax(axis=1))
