"""LMDB files, read key by key and written a batch at a time."""

from collections.abc import Iterator, Sequence
import pathlib
from typing import Any

from input_pipeline import errors
from input_pipeline.region_files import contract
from input_pipeline.region_files import optional

DATA = 'data.mdb'
_FIRST_MAP_BYTES = 2**26


class Reader(contract.Reader):
  """An LMDB whose keys are image names.

  Attributes:
    skipped_keys: keys that hold no image; overridden.
  """
  skipped_keys: Sequence[bytes] = (b'keys', b'__keys__', b'__len__')

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    lmdb = optional.load('lmdb')
    if path.is_dir() and not (path / DATA).is_file():
      raise errors.UserError(f'{path} holds no {DATA}: no LMDB')
    # Without the lock file: the folder may be read-only, and nobody writes.
    self._environment = lmdb.open(
        str(path), subdir=path.is_dir(), readonly=True, lock=False,
        create=False, readahead=False, max_dbs=0)
    self._read = self._environment.begin(buffers=True)

  def entries(self) -> Iterator[contract.Entry]:
    before = b''
    with self._read.cursor() as cursor:
      for key in cursor.iternext(keys=True, values=False):
        key = bytes(key)
        if key <= before:  # A damaged tree can have circles.
          raise errors.UserError(
              f'{self.path} is damaged: key {key!r} stands after {before!r}')
        before = key
        if key not in self.skipped_keys:
          yield contract.Entry(self.image_id(key), key.decode('latin-1'))

  def image_id(self, key: bytes) -> str:
    """Returns the image's name; some formats have it in the value."""
    return key.decode('utf-8', 'surrogateescape')

  def value(self, place: str) -> memoryview:
    """Returns the bytes of a key.

    Raises:
      RowError: it is not there, or larger than any image's regions.
    """
    found = self._read.get(place.encode('latin-1'))
    if found is None:
      raise contract.RowError('damaged', 'the key is gone')
    if len(found) > contract.MAX_BYTES:
      raise contract.RowError('too large', f'{len(found):,} bytes')
    return found

  @staticmethod
  def where(place: Any) -> str:
    return f'key {place!r}'

  def close(self) -> None:
    self._read.abort()
    self._environment.close()


class Environment:
  """An LMDB folder being written; grows as it must."""

  def __init__(self, path: pathlib.Path):
    self._lmdb = optional.load('lmdb')
    # Written to the disk at the end, not after every image.
    self._environment = self._lmdb.open(
        str(path), map_size=_FIRST_MAP_BYTES, lock=False, sync=False)

  def put(self, key: bytes, value: bytes) -> None:
    """Writes one value under a new key.

    Raises:
      UserError: LMDB takes no such key.
    """
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
