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

from input_pipeline import regions
from input_pipeline.regions import containers
from input_pipeline.regions import fields
from input_pipeline.weights import pickles


class Reader(containers.LmdbReader):
  """An LMDB of pickles, or tensorpack's of msgpack."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._is_tensorpack = self.has(b'__keys__')
    if self._is_tensorpack:
      self.found['container'] = 'tensorpack'

  def entries(self) -> Iterator[regions.Entry]:
    for entry in super().entries():
      if self._is_tensorpack:
        # Names are in the values: each is unpacked once more when it is used.
        with regions.refusing(self.path, self.where(entry.place)):
          entry = entry._replace(image_id=_name(self._values(entry.place)))
      yield entry

  def load(self, place: Any) -> regions.RegionSet:
    values = self._values(place)
    name = _name(values) if self._is_tensorpack else self.image_id(place)
    return self.detections.read(name, values)

  def _values(self, place: bytes) -> Any:
    data = self.value(place)
    # Pickle's first opcode and version; in msgpack, an empty map.
    is_pickle = data[:1] == b'\x80' and data[1:2] <= b'\x05'
    return (pickles.loads(data) if is_pickle or not self._is_tensorpack
            else containers.unpack_msgpack(data))


def _name(values: Any) -> str:
  return fields.Fields(values).text('img_id', 'image_id')


class Writer(containers.LmdbWriter):
  """Writes the first variant; class −1 stands for background."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._keys: list[bytes] = []

  def add(self, image: regions.RegionSet) -> None:
    key = image.image_id.encode()
    value = {
        'img_id': image.image_id, 'img_h': image.height,
        'img_w': image.width, 'boxes': np.asarray(image.boxes_R4),
        'features': np.asarray(image.features_RF)}
    if image.class_ids_R.any():
      value['obj_id'] = image.class_ids_R.astype(np.int64) - 1
    self.put(key, pickle.dumps(value))
    self._keys.append(key)

  def close(self) -> None:
    self.put(b'keys', pickle.dumps(self._keys))
    super().close()
