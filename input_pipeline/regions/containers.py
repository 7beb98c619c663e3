"""The containers that several formats lie in: tables, folders, h5 and LMDB.

Nothing in them is run, and no claim of a size is believed: NumPy's own reader
allocates what a header claims before it looks how much there is, and unpickles
what it is allowed to.
"""

from collections.abc import Iterator, Sequence
import io
import math
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from input_pipeline import errors
from input_pipeline import regions
from input_pipeline.regions import fields
from input_pipeline.weights import pickles

_BUFFER_BYTES = 2**20
# h5: chunks of several images are unpacked once.
_CACHE_BYTES = 2**26
_FIRST_MAP_BYTES = 2**26
# Columns of a table → the format they are.
_FORMATS = {6: 'butd_tsv', 10: 'lxmert_tsv'}


class TableReader(regions.Reader):
  """A line an image, fields apart by tabs, arrays in base64."""
  # The csv module refuses such long fields, and a whole file fits in no memory:
  # lines are found by their offsets and read one at a time.
  glob = '*.tsv*'
  columns: Sequence[str] = ()
  # Of the columns with an image's name and size.
  prefix = 'image'

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._file = open(path, 'rb')  # noqa: SIM115 — closed by `close`.
    found = 1 + self._file.readline(regions.MAX_BYTES).count(b'\t')
    if found != len(self.columns):
      self.close()
      other = _FORMATS.get(found)
      hint = f'; that is --features_format={other}' if other else ''
      raise errors.UserError(
          f'{path}: {found} columns in row 1; allowed: {len(self.columns)} '
          f'({" ".join(self.columns)}){hint}')

  def entries(self) -> Iterator[regions.Entry]:
    with open(self.path, 'rb', buffering=_BUFFER_BYTES) as file:
      start = 0
      for row, line in enumerate(
          iter(lambda: file.readline(regions.MAX_BYTES), b''), start=1):
        if len(line) == regions.MAX_BYTES:
          raise errors.UserError(
              f'{self.path}: row {row} is longer than {regions.MAX_BYTES:,} '
              'bytes')
        if line.strip():
          name, tab, _ = line.partition(b'\t')
          # Names that are no UTF-8 stay apart; a row without a tab has none.
          yield regions.Entry(
              name.decode('utf-8', 'surrogateescape').strip() if tab else '',
              (row, start, len(line)))
        start += len(line)

  def row(self, place: Any) -> fields.Fields:
    """Returns the fields of a row; RowError where it has others."""
    _, start, size = place
    line = os.pread(self._file.fileno(), size, start).rstrip(b'\r\n')
    values = line.split(b'\t')
    if len(values) != len(self.columns):
      raise regions.RowError(
          'wrong number of columns',
          f'found {len(values)}; allowed: {len(self.columns)}')
    return fields.Fields(dict(zip(self.columns, values, strict=True)))

  def load(self, place: Any) -> regions.RegionSet:
    row = self.row(place)
    count = row.whole('num_boxes')
    return regions.RegionSet(
        boxes_R4=row.matrix('boxes', rows=count, columns=4),
        features_RF=row.matrix('features', rows=count),
        class_ids_R=self.class_ids(row, count),
        height=row.whole(f'{self.prefix}_h'),
        width=row.whole(f'{self.prefix}_w'),
        image_id=row.text(f'{self.prefix}_id').strip())

  def class_ids(self, row: fields.Fields, count: int) -> np.ndarray:
    """Returns the classes of a row's regions."""
    del row
    return fields.no_classes(count)

  @staticmethod
  def where(place: Any) -> str:
    return f'row {place[0]}'

  def close(self) -> None:
    self._file.close()


class FolderReader(regions.Reader):
  """A folder with a file an image, named after it, by a detection script."""
  classes = fields.FROM_ZERO_OR_TOLD
  ending = ''

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self.detections = fields.Detections(self.found)
    if not path.is_dir() or next(self.entries(), None) is None:
      raise errors.UserError(
          f'{path} is no folder with files *{self.ending}')

  def entries(self) -> Iterator[regions.Entry]:
    for path in sorted(self.path.rglob(f'*{self.ending}')):
      # Below the folder, as images of several folders may share a name.
      name = path.relative_to(self.path).as_posix()
      # What is hidden is no data: macOS writes ._a.npy beside a.npy.
      if os.path.isfile(path) and '/.' not in f'/{name}' and (
          self.is_image(name)):
        yield regions.Entry(name.removesuffix(self.ending), name)

  def is_image(self, name: str) -> bool:
    """Returns whether a file of that name stands for an image."""
    del name
    return True

  def read(self, place: str) -> bytes:
    """Returns the content of a file; RowError where it cannot be used."""
    path = self.path / place
    if not os.path.isfile(path):
      raise regions.RowError('missing', place)
    size = path.stat().st_size
    if size > regions.MAX_BYTES:
      raise regions.RowError('too large', f'{size:,} bytes')
    return path.read_bytes()

  @staticmethod
  def where(place: Any) -> str:
    return f'file {place}'


class H5Reader(regions.Reader):
  """HDF5, read slice by slice, without what leads out of the file."""
  glob = '*.h5'
  is_isolated = True

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._h5py = regions.load_library('h5py')
    # Nobody writes, and not every file system can lock.
    self.file = self._h5py.File(
        path, 'r', rdcc_nbytes=_CACHE_BYTES, locking=False)

  def member(self, group: Any, name: str) -> Any:
    """Returns a member of a group, not a link: those may name any file."""
    link = group.get(name, getlink=True)
    if link is None:
      raise errors.UserError(f'no {name!r} in {group.name}')
    if not isinstance(link, self._h5py.HardLink):
      raise errors.UserError(
          f'{group.name}/{name} is a {type(link).__name__}; links are not '
          'followed')
    return group[name]

  def dataset(self, group: Any, name: str) -> Any:
    """Returns a dataset of numbers or strings that lie in this file."""
    found = self.member(group, name)
    if not isinstance(found, self._h5py.Dataset):
      raise errors.UserError(f'{found.name} is no dataset')
    if found.external or found.is_virtual:
      raise errors.UserError(
          f'the data of {found.name} lie in other files; they are not read')
    is_text = self._h5py.check_string_dtype(found.dtype) is not None
    if found.dtype.kind not in 'biuf' and not is_text:
      raise errors.UserError(f'{found.name} holds {found.dtype}')
    return found

  @staticmethod
  def read(dataset: Any, row: int | None = None) -> np.ndarray:
    """Returns a dataset, or one row of it."""
    shape = dataset.shape or ()
    size = dataset.dtype.itemsize * math.prod(
        shape if row is None else shape[1:])
    if size > regions.MAX_BYTES:
      raise regions.RowError(
          'too large', f'{dataset.name} has {size:,} bytes for an image')
    return dataset[()] if row is None else dataset[row]

  def close(self) -> None:
    self.file.close()


class LmdbReader(regions.Reader):
  """An LMDB whose keys are image names; folder or file."""
  glob = '*.lmdb'
  is_isolated = True
  classes = fields.FROM_ZERO_OR_TOLD
  _no_images = (b'keys', b'__keys__', b'__len__')

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self.detections = fields.Detections(self.found)
    lmdb = regions.load_library('lmdb')
    if path.is_dir() and not (path / 'data.mdb').is_file():
      raise errors.UserError(f'{path} holds no data.mdb: no LMDB')
    # Without the lock file: the folder may be read-only, and nobody writes.
    self._environment = lmdb.open(
        str(path), subdir=path.is_dir(), readonly=True, lock=False,
        create=False, readahead=False, max_dbs=0)
    self._read = self._environment.begin(buffers=True)

  def entries(self) -> Iterator[regions.Entry]:
    before = b''
    with self._read.cursor() as cursor:
      for key in cursor.iternext(keys=True, values=False):
        key = bytes(key)
        if key <= before:  # A damaged tree can have circles.
          raise errors.UserError(
              f'{self.path} is damaged: key {key!r} stands after {before!r}')
        before = key
        if key not in self._no_images:
          yield regions.Entry(self.image_id(key), key)

  def image_id(self, key: bytes) -> str:
    """Returns the image's name; some formats have it in the value."""
    return key.decode('utf-8', 'surrogateescape')

  def has(self, key: bytes) -> bool:
    """Returns whether the key is there."""
    return self._read.get(key) is not None

  def value(self, key: bytes) -> bytes:
    """Returns the bytes of a key; RowError where they cannot be used."""
    found = self._read.get(key)
    if found is None:
      raise regions.RowError('damaged', 'the key is gone')
    if len(found) > regions.MAX_BYTES:
      raise regions.RowError('too large', f'{len(found):,} bytes')
    return bytes(found)

  @staticmethod
  def where(place: Any) -> str:
    return f'key {place.decode("latin-1")!r}'

  def close(self) -> None:
    self._read.abort()
    self._environment.close()


class LmdbWriter(regions.Writer):
  """An LMDB folder being written; grows as it must."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._lmdb = regions.load_library('lmdb')
    # Written to the disk at the end, not after every image.
    self._environment = self._lmdb.open(
        str(path), map_size=_FIRST_MAP_BYTES, lock=False, sync=False)

  def put(self, key: bytes, value: bytes) -> None:
    """Writes one value under a new key; UserError where it is no LMDB key."""
    if not 0 < len(key) <= self._environment.max_key_size():
      raise errors.UserError(
          f'the image id {key!r} has {len(key)} bytes; LMDB allows 1 to '
          f'{self._environment.max_key_size()}')
    while True:
      try:
        with self._environment.begin(write=True) as transaction:
          transaction.put(key, value)
        return
      except self._lmdb.MapFullError:
        size = self._environment.info()['map_size']
        self._environment.set_mapsize(2 * size + len(value))

  def close(self) -> None:
    self._environment.sync(True)
    self._environment.close()


def unpack_npy(data: bytes) -> Any:
  """Returns the array of a .npy file; of an array of objects, its objects."""
  file = io.BytesIO(data)
  version = np.lib.format.read_magic(file)
  read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
          else np.lib.format.read_array_header_2_0)
  shape, is_fortran, dtype = read(file)
  if dtype.hasobject:
    return pickles.loads(data[file.tell():])
  size = math.prod(shape) * dtype.itemsize
  if dtype.kind not in 'biufSU' or size != len(data) - file.tell():
    raise regions.RowError(
        'damaged', f'{dtype} {list(shape)} in {len(data):,} bytes')
  return np.frombuffer(data, dtype, offset=file.tell()).reshape(
      shape, order='F' if is_fortran else 'C')


def unpack_npz(data: bytes) -> dict[str, Any]:
  """Returns the arrays of a .npz file."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    entries = archive.infolist()
    # Lies about the size end in a checksum error after that many bytes.
    total = sum(entry.file_size for entry in entries)
    if total > regions.MAX_BYTES:
      raise regions.RowError(
          'too large', f'{total:,} bytes unpacked; at most '
          f'{regions.MAX_BYTES:,} are read for an image')
    return {entry.filename.removesuffix('.npy'):
            unpack_npy(archive.read(entry)) for entry in entries}


def unpack_msgpack(data: bytes) -> Any:
  """Returns what msgpack holds, with arrays as msgpack-numpy writes them.

  Source: msgpack_numpy.encode: {nd: True, type: dtype.str, kind: '', shape,
  data}; without `nd` set, a scalar.
  """
  return regions.load_library('msgpack').unpackb(
      data, object_hook=_array, strict_map_key=False)


def _array(value: dict) -> Any:
  """Returns the array or the dict that a msgpack map stands for."""
  value = {key.decode() if isinstance(key, bytes) else key: item
           for key, item in value.items()}
  if 'nd' not in value or 'data' not in value:
    return value
  kind = value.get('kind') or b''
  dtype = np.dtype(value['type'])
  if kind not in (b'', '') or dtype.kind not in 'biuf':
    raise regions.RowError('damaged', f'an array of {dtype}, kind {kind!r}')
  array = np.frombuffer(value['data'], dtype)
  return array.reshape(value['shape']) if value['nd'] else array[0]
