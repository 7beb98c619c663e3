"""VOLTA LMDB: key = image id, value = a pickled dict, in three variants.

From h5: the h5's fields as arrays, and `img_id`. From npy: `features` and
`boxes` as base64 or arrays, `img_h`, `img_w`, `num_boxes`, `objects`,
`cls_prob`. From tensorpack ("td-LMDB"): keys count from 0, values are msgpack
and the image is `img_id`. The key `keys` (or `__keys__`) lists the others.
"""

from collections.abc import Iterator
import pathlib
import pickle
from typing import Any

import numpy as np

from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import detections
from input_pipeline.region_files import fields
from input_pipeline.region_files import lmdb_file
from input_pipeline.region_files import packed
from input_pipeline.weights import pickles

GLOB = '*.lmdb'
ISOLATED = True
BOXES = 'xyxy in pixels'
CLASSES = classes.FROM_ZERO + ', unless `cls_prob` tells otherwise'

_TENSORPACK = b'__keys__'


class Reader(lmdb_file.Reader):
  """An LMDB of pickles, or tensorpack's of msgpack."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._convention = classes.Convention(self.found)
    self._is_tensorpack = self._read.get(_TENSORPACK) is not None
    if self._is_tensorpack:
      self.found['container'] = 'tensorpack'

  def entries(self) -> Iterator[contract.Entry]:
    for entry in super().entries():
      if self._is_tensorpack:
        # Names are in the values: each is unpacked once more when it is used.
        with contract.refusing(self.path, self.where(entry.place)):
          entry = entry._replace(image_id=_name(self._values(entry.place)))
      yield entry

  def load(self, place: Any) -> contract.ImageRegions:
    values = self._values(place)
    name = (_name(values) if self._is_tensorpack
            else self.image_id(place.encode('latin-1')))
    return detections.regions_of(name, values, self._convention)

  def _values(self, place: str) -> Any:
    data = bytes(self.value(place))
    # Pickle's first opcode and version; in msgpack, an empty map.
    is_pickle = data[:1] == b'\x80' and data[1:2] <= b'\x05'
    return (pickles.loads(data) if is_pickle or not self._is_tensorpack
            else packed.msgpack(data))


def _name(values: Any) -> str:
  return fields.Fields(values).text('img_id', 'image_id')


class Writer(contract.Writer):
  """Writes the first variant; class −1 stands for background."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._environment = lmdb_file.Environment(path)
    self._keys: list[bytes] = []

  def add(self, regions: contract.ImageRegions) -> None:
    key = regions.image_id.encode()
    value = {
        'img_id': regions.image_id, 'img_h': regions.height,
        'img_w': regions.width, 'boxes': np.asarray(regions.boxes_R4),
        'features': np.asarray(regions.features_RF)}
    if regions.class_ids_R.any():
      value['obj_id'] = regions.class_ids_R.astype(np.int64) - 1
    self._environment.put(key, pickle.dumps(value))
    self._keys.append(key)

  def close(self) -> None:
    self._environment.put(b'keys', pickle.dumps(self._keys))
    self._environment.close()
