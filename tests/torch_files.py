"""Writes both containers of PyTorch without PyTorch, for hostile files too."""

from collections.abc import Mapping
import dataclasses
import io
import math
import pathlib
import pickle
from typing import Any
import zipfile

import numpy as np


@dataclasses.dataclass(frozen=True)
class Global:
  """A name in a pickle; calling it is left to the reader."""

  module: str
  name: str

  def __call__(self, *_: Any) -> None:
    raise AssertionError('pickling must not call')


@dataclasses.dataclass(frozen=True)
class Call:
  function: Global
  arguments: tuple


@dataclasses.dataclass(frozen=True)
class Storage:
  kind: str
  key: str
  size: int
  view: tuple = ()


class Pickler(pickle._Pickler):
  """Writes names that cannot be imported here, as PyTorch would."""

  def persistent_id(self, value: Any) -> Any:
    if not isinstance(value, Storage):
      return None
    kind = Global('torch', value.kind)
    return 'storage', kind, value.key, 'cpu', value.size, *value.view

  def reducer_override(self, value: Any) -> Any:
    if type(value) is Call:
      return value.function, value.arguments
    return NotImplemented

  def _save_name(self, value: Global) -> None:
    self.write(f'c{value.module}\n{value.name}\n'.encode())

  dispatch = {**pickle._Pickler.dispatch, Global: _save_name}


def dump(value: Any) -> bytes:
  file = io.BytesIO()
  Pickler(file, protocol=2).dump(value)
  return file.getvalue()


def floats(size: int) -> Storage:
  return Storage('FloatStorage', '0', size)


def tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Call:
  return Call(Global('torch._utils', '_rebuild_tensor_v2'),
              (storage, offset, shape, strides, False, None))


def write_zip(path: pathlib.Path, value: Any, storages: Mapping[str, bytes], *,
              order: bytes = b'little',
              compression: int = zipfile.ZIP_STORED) -> pathlib.Path:
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('a/data.pkl', dump(value))
    archive.writestr('a/byteorder', order)
    for key, data in storages.items():
      archive.writestr(f'a/data/{key}', data)
  return path


def write_legacy(path: pathlib.Path, value: Any,
                 storages: Mapping[str, Any]) -> pathlib.Path:
  parts = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, value]
  with path.open('wb') as file:
    file.writelines(map(dump, [*parts, list(storages)]))
    for storage_N in storages.values():
      file.write(np.int64(storage_N.size).tobytes())
      file.write(np.asarray(storage_N).tobytes())
  return path


def write(path: pathlib.Path, value: Any, storages: Mapping[str, Any], *,
          legacy: bool) -> pathlib.Path:
  """Writes the container before PyTorch 1.6, or the one since."""
  return write_legacy(path, value, storages) if legacy else write_zip(
      path, value, {key: np.asarray(storage).tobytes()
                    for key, storage in storages.items()})


def write_state_dict(path: pathlib.Path, tensors: Mapping[str, Any],
                     options: Any = None) -> pathlib.Path:
  """Writes {'model': tensors, 'params': options} before PyTorch 1.6."""
  value, storages = _state_dict(tensors)
  return write_legacy(
      path, {'model': value, 'params': dict(options or {})}, storages)


def write_flat(path: pathlib.Path, tensors: Mapping[str, Any], *,
               zipped: bool = True) -> pathlib.Path:
  """Writes the tensors alone."""
  return write(path, *_state_dict(tensors), legacy=not zipped)


def _state_dict(tensors: Mapping[str, Any]) -> tuple[Any, Any]:
  """Returns float32 tensors for a pickle, and their storages.

  Equal objects share one storage, as tied weights do.
  """
  keys = {id(t): str(n) for n, t in enumerate(tensors.values())}
  value = {}
  for name, t in tensors.items():
    strides = tuple(
        math.prod(t.shape[axis + 1:]) for axis in range(len(t.shape)))
    storage = Storage('FloatStorage', keys[id(t)], t.size)
    value[name] = tensor(storage, 0, t.shape, strides)
  return value, {keys[id(t)]: np.asarray(t, np.float32)
                 for t in tensors.values()}
