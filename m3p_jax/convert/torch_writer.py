"""Writes a PyTorch checkpoint without PyTorch.

The zip container of PyTorch 1.6 and later: a pickle that names tensors, and
their numbers as they are. The pickle is put together by hand, because pickle
itself only writes names that can be imported.
Source: PyTorch's documentation of the format, and Python's pickletools.
"""

from collections.abc import Callable, Mapping
import pathlib
import struct
from typing import Any
import zipfile

import numpy as np

_PROTOCOL = b'\x80\x02'
_REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'
_FLOAT = b'ctorch\nFloatStorage\n'
_EMPTY_HOOKS = b'ccollections\nOrderedDict\n)R'
_MARK, _TUPLE, _DICT, _SET_ITEMS, _REDUCE, _BY_ID, _STOP = (
    b'(', b't', b'}', b'u', b'R', b'Q', b'.')


def write(path: pathlib.Path, tensors: Mapping[str, Any],
          options: Mapping[str, Any]) -> None:
  """Writes {'model': tensors, 'params': options}.

  Args:
    path: of the file; its folder exists.
    tensors: arrays, or what becomes one when it is asked for; float32 in the
      file. Entries that are one object share one storage.
    options: whole numbers and texts.
  """
  params = {name: _value(value) for name, value in options.items()}
  _write(path, tensors, lambda model: _dict(
      {'model': model, 'params': _dict(params)}))


def write_flat(path: pathlib.Path, tensors: Mapping[str, Any]) -> None:
  """Writes the tensors alone, as `write` does."""
  _write(path, tensors, lambda model: model)


def _write(path: pathlib.Path, tensors: Mapping[str, Any],
           wrap: Callable[[bytes], bytes]) -> None:
  keys: dict[int, str] = {}
  storages: dict[str, Any] = {}
  for tensor in tensors.values():
    if id(tensor) not in keys:
      keys[id(tensor)] = str(len(keys))
      storages[keys[id(tensor)]] = tensor
  model = _dict({name: _tensor(keys[id(tensor)], tensor)
                 for name, tensor in tensors.items()})
  root = 'archive'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    archive.writestr(f'{root}/data.pkl', _PROTOCOL + wrap(model) + _STOP)
    archive.writestr(f'{root}/byteorder', 'little')
    for key, tensor in storages.items():
      # The size is known only when all is written: allow for 4 GB and more.
      with archive.open(f'{root}/data/{key}', 'w', force_zip64=True) as entry:
        array = np.ascontiguousarray(tensor, '<f4')
        entry.write(array.reshape(-1).data.cast('B'))
    archive.writestr(f'{root}/version', '3\n')


def _value(value: int | str) -> bytes:
  """Returns the opcodes that push a number or a text."""
  if isinstance(value, str):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data
  data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
  return b'\x8a' + bytes([len(data)]) + data


def _tuple(*parts: bytes) -> bytes:
  return _MARK + b''.join(parts) + _TUPLE


def _dict(items: Mapping[str, bytes]) -> bytes:
  return _DICT + _MARK + b''.join(
      _value(name) + value for name, value in items.items()) + _SET_ITEMS


def _tensor(key: str, tensor: Any) -> bytes:
  """Returns the opcodes that push one tensor: a whole storage, row by row."""
  strides, step = [], 1
  for length in tensor.shape[::-1]:
    strides.insert(0, step)
    step *= length
  storage = _tuple(_value('storage'), _FLOAT, _value(key), _value('cpu'),
                   _value(tensor.size)) + _BY_ID
  needs_gradient = b'\x89'  # False.
  return _REBUILD + _tuple(
      storage, _value(0), _tuple(*map(_value, tensor.shape)),
      _tuple(*map(_value, strides)), needs_gradient, _EMPTY_HOOKS) + _REDUCE
