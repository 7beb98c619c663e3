"""M3P h5: datasets over N images.

`image_id` (bytes: the file name, with `.jpg` for coco and flickr), `wh`
[N, 2], `num_boxes` [N] (rows after it are padding), `bbox` [N, 100, 4] xyxy
pixels, `features` [N, 100, F], `objects` [N, 100] or `distribution`
[N, 100, 1600]. Older files: `boxes`, `object`, ids without `.jpg`.

microsoft/M3P unpacks `wh` as height, width; other writers mean width, height.
The boxes tell which it is. Classes stay as they are, since the released
weights count so: class 0 is never masked.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline.region_files import classes
from input_pipeline.region_files import contract
from input_pipeline.region_files import fields
from input_pipeline.region_files import h5_file

GLOB = '*.h5'
ISOLATED = True
BOXES = 'xyxy in pixels'
CLASSES = 'as in the file, where 0 is never masked'

_BOXES = ('bbox', 'boxes')
_OBJECTS = ('objects', 'object')
_SCORES = 'distribution'
_ROWS = 256
_NUM_REGIONS = 100
# Share of images that may have boxes outside in the order of the others.
_MAX_DISSENT = 0.01


class Reader(contract.Reader):
  """A file of N images."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._file = h5_file.open_file(path)
    self._ids = self._dataset('image_id')
    self._wh = self._dataset('wh')
    self._boxes = self._dataset(*_BOXES)
    self._features = self._dataset('features')
    self._counts = self._optional('num_boxes')
    self._objects = self._optional(*_OBJECTS)
    self._scores = self._optional(_SCORES)
    self._check_shapes()
    self._is_height_first = self._tell_order()
    self.found['wh'] = ('height, width' if self._is_height_first
                        else 'width, height')

  def _optional(self, *names: str) -> Any:
    names = tuple(name for name in names if name in self._file)
    return h5_file.dataset(self._file, names[0]) if names else None

  def _dataset(self, *names: str) -> Any:
    found = self._optional(*names)
    if found is None:
      raise errors.UserError(
          f'{self.path} has no dataset {" or ".join(map(repr, names))}; found: '
          f'{", ".join(sorted(self._file)) or "nothing"}')
    return found

  def _check_shapes(self) -> None:
    count = (self._ids.shape or (0,))[0]
    for found, rank, last in ((self._ids, 1, None), (self._wh, 2, 2),
                              (self._boxes, 3, 4), (self._features, 3, None),
                              (self._counts, 1, None), (self._objects, 2, None),
                              (self._scores, 3, None)):
      if found is not None and (
          len(found.shape or ()) != rank or found.shape[0] != count
          or last not in (None, found.shape[-1])):
        raise errors.UserError(
            f'{self.path}: {found.name} has shape {found.shape}; allowed: '
            f'{rank} axes, the first of {count} images'
            + (f', the last of {last}' if last else ''))

  def _tell_order(self) -> bool:
    """Returns whether `wh` holds (height, width).

    Raises:
      UserError: some images fit one order only, some the other only.
    """
    votes = {True: 0, False: 0}
    for start in range(0, len(self._ids), _ROWS):
      rows = slice(start, start + _ROWS)
      sizes_N2 = self._wh[rows].astype(np.float64)
      # Width beside right edge, height beside bottom edge.
      edges_N2 = self._boxes[rows][:, :, 2:].max(axis=1)
      # A pixel of slack: detectors round.
      fits = {order: (edges_N2 <= ordered_N2 + 1).all(axis=1)
              for order, ordered_N2 in (
                  (True, sizes_N2[:, ::-1]), (False, sizes_N2))}
      for order in votes:
        votes[order] += int((fits[order] & ~fits[not order]).sum())
    if min(votes.values()) > _MAX_DISSENT * sum(votes.values()):
      raise errors.UserError(
          f'{self.path}: by the boxes, `wh` is height, width in {votes[True]} '
          f'images and width, height in {votes[False]}')
    return votes[True] >= votes[False]

  def entries(self) -> Iterator[contract.Entry]:
    for start in range(0, len(self._ids), _ROWS):
      for row, name in enumerate(self._ids[start:start + _ROWS], start):
        name = fields.Fields({'image_id': _plain(name)}).text('image_id')
        yield contract.Entry(name, row)

  def load(self, place: Any) -> contract.ImageRegions:
    row = fields.Fields({
        name: h5_file.read(found, place) for name, found in (
            ('num_boxes', self._counts), ('boxes', self._boxes),
            ('features', self._features), ('objects', self._objects),
            ('distribution', self._scores)) if found is not None})
    boxes_R4 = row.matrix('boxes', columns=4)
    count = row.whole('num_boxes') if row.has('num_boxes') else len(boxes_R4)
    if not 0 < count <= len(boxes_R4):
      raise contract.RowError(
          'num_boxes does not fit', f'found {count} for {len(boxes_R4)} boxes')
    sizes = [fields.whole(size, 'wh') for size in self._wh[place]]
    height, width = sizes if self._is_height_first else sizes[::-1]
    features_RF = row.matrix('features', rows=len(boxes_R4))
    return contract.ImageRegions(
        fields.Fields({'image_id': _plain(self._ids[place])}).text('image_id'),
        height, width, boxes_R4[:count], features_RF[:count],
        _classes(row, len(boxes_R4), count))

  @staticmethod
  def where(place: Any) -> str:
    return f'row {place}'

  def close(self) -> None:
    self._file.close()


def _plain(name: Any) -> Any:
  return name.item() if isinstance(name, np.generic) else name


def _classes(row: fields.Fields, num_rows: int, count: int) -> np.ndarray:
  """Returns int32 [count] of `num_rows` with padding."""
  if row.has('objects'):
    objects_R = row.vector('objects', rows=num_rows)[:count]
    return classes.from_zero(objects_R - 1)
  if row.has(_SCORES):
    scores_RC = row.matrix(_SCORES, rows=num_rows)[:count]
    return scores_RC.argmax(axis=1).astype(np.int32)
  return classes.unknown(count)


class Writer(contract.Writer):
  """Writes such a file, `wh` as height, width, padded to 100 regions."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._file = h5_file.create(path)
    self._num_images = 0

  def add(self, regions: contract.ImageRegions) -> None:
    count = len(regions.boxes_R4)
    if count > _NUM_REGIONS:
      raise errors.UserError(
          f'{regions.image_id} has {count} regions; m3p_h5 has room for '
          f'{_NUM_REGIONS}')
    values = {
        'image_id': regions.image_id.encode(),
        'wh': np.array([regions.height, regions.width], np.int64),
        'num_boxes': np.int64(count),
        'bbox': _padded(regions.boxes_R4.astype(np.float32)),
        'features': _padded(regions.features_RF),
        'objects': _padded(regions.class_ids_R.astype(np.int64))}
    if not self._num_images:
      self._create(values)
    for name, value in values.items():
      found = self._file[name]
      found.resize(self._num_images + 1, axis=0)
      found[self._num_images] = value
    self._num_images += 1

  def _create(self, values: dict[str, Any]) -> None:
    for name, value in values.items():
      dtype, shape = getattr(value, 'dtype', None), np.shape(value)
      if name == 'image_id':
        dtype = h5_file.string_type()
      self._file.create_dataset(
          name, shape=(0, *shape), maxshape=(None, *shape), dtype=dtype,
          chunks=(1 if shape else _ROWS, *shape))

  def close(self) -> None:
    self._file.close()


def _padded(array: np.ndarray) -> np.ndarray:
  """Returns [100, …], zeros after the regions."""
  padded = np.zeros((_NUM_REGIONS, *array.shape[1:]), array.dtype)
  padded[:len(array)] = array
  return padded
