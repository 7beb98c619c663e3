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
from input_pipeline import regions
from input_pipeline.regions import containers
from input_pipeline.regions import fields

_ROWS = 256
_NUM_REGIONS = 100
# Share of images that may have boxes outside in the order of the others.
_MAX_DISSENT = 0.01


class Reader(containers.H5Reader):
  """A file of N images."""
  classes = 'as in the file, where 0 is never masked'
  shifts_classes = False

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._ids = self._dataset('image_id', rank=1)
    self._wh = self._dataset('wh', rank=2, last=2)
    self._boxes = self._dataset('bbox', 'boxes', rank=3, last=4)
    self._columns = {
        'boxes': self._boxes, 'features': self._dataset('features', rank=3)}
    for names, rank in ((('num_boxes',), 1), (('objects', 'object'), 2),
                        (('distribution',), 3)):
      if any(name in self.file for name in names):
        self._columns[names[0]] = self._dataset(*names, rank=rank)
    self._is_height_first = self._tell_order()
    self.found['wh'] = ('height, width' if self._is_height_first
                        else 'width, height')

  def _dataset(self, *names: str, rank: int, last: int | None = None) -> Any:
    """Returns the dataset of the first name that is there, over all images."""
    name = next((name for name in names if name in self.file), None)
    if name is None:
      raise errors.UserError(
          f'{self.path} has no dataset {" or ".join(map(repr, names))}; found: '
          f'{", ".join(sorted(self.file)) or "nothing"}')
    found = self.dataset(self.file, name)
    shape: tuple[int, ...] = found.shape or ()
    count = shape[:1] if name == 'image_id' else self._ids.shape
    if len(shape) != rank or shape[:1] != count or (
        last not in (None, shape[-1])):
      raise errors.UserError(
          f'{self.path}: {found.name} has shape {found.shape}; allowed: '
          f'{rank} axes, the first of {count[0] if count else 0} images'
          + (f', the last of {last}' if last else ''))
    return found

  def _tell_order(self) -> bool:
    """Returns whether `wh` holds (height, width), of which the boxes tell."""
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

  def entries(self) -> Iterator[regions.Entry]:
    for start in range(0, len(self._ids), _ROWS):
      for row, name in enumerate(self._ids[start:start + _ROWS], start):
        yield regions.Entry(_name(name), row)

  def load(self, place: Any) -> regions.RegionSet:
    row = fields.Fields({name: self.read(found, place)
                         for name, found in self._columns.items()})
    boxes_R4 = row.matrix('boxes', columns=4)
    num_rows = len(boxes_R4)
    count = row.count(num_rows)
    sizes = [fields.whole(size, 'wh') for size in self._wh[place]]
    height, width = sizes if self._is_height_first else sizes[::-1]
    features_RF = row.matrix('features', rows=num_rows)
    if row.has('objects'):
      objects_R = row.vector('objects', rows=num_rows)[:count]
      classes_R = fields.from_zero(objects_R - 1)
    elif row.has('distribution'):
      scores_RC = row.matrix('distribution', rows=num_rows)[:count]
      classes_R = scores_RC.argmax(axis=1)
    else:
      classes_R = fields.no_classes(count)
    return regions.RegionSet(
        features_RF[:count], boxes_R4[:count], classes_R, height, width,
        _name(self._ids[place]))

  @staticmethod
  def where(place: Any) -> str:
    return f'row {place}'


def _name(value: Any) -> str:
  value = value.item() if isinstance(value, np.generic) else value
  return fields.Fields({'image_id': value}).text('image_id')


class Writer(regions.Writer):
  """Writes such a file, `wh` as height, width, padded to 100 regions."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._h5py = regions.load_library('h5py')
    self._file = self._h5py.File(path, 'w')
    self._num_images = 0

  def add(self, image: regions.RegionSet) -> None:
    count = len(image.boxes_R4)
    if count > _NUM_REGIONS:
      raise errors.UserError(
          f'{image.image_id} has {count} regions; m3p_h5 has room for '
          f'{_NUM_REGIONS}')
    values: dict[str, Any] = {
        'image_id': image.image_id.encode(),
        'wh': np.array([image.height, image.width], np.int64),
        'num_boxes': np.int64(count),
        'bbox': _padded(image.boxes_R4.astype(np.float32)),
        'features': _padded(image.features_RF),
        'objects': _padded(image.class_ids_R.astype(np.int64))}
    for name, value in values.items():
      shape = np.shape(value)
      found = self._file.get(name)
      if found is None:
        found = self._file.create_dataset(
            name, shape=(0, *shape), maxshape=(None, *shape),
            dtype=getattr(value, 'dtype', self._h5py.string_dtype('utf-8')),
            chunks=(1 if shape else _ROWS, *shape))
      found.resize(self._num_images + 1, axis=0)
      found[self._num_images] = value
    self._num_images += 1

  def close(self) -> None:
    self._file.close()


def _padded(array: np.ndarray) -> np.ndarray:
  """Returns [100, …], zeros after the regions."""
  padded = np.zeros((_NUM_REGIONS, *array.shape[1:]), array.dtype)
  padded[:len(array)] = array
  return padded
