"""Reads the tensors of a weight file: PyTorch's containers and safetensors."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import errors
from input_pipeline import torch_file

_INDEX = '.index.json'


class File(NamedTuple):
  """What a weight file holds.

  Attributes:
    tensors: arrays by key, without `prefix`.
    prefix: `module.` in M3P's training checkpoints, else ''.
    params: the options it was trained with, {} where it has none.
    geometry: config.json beside the file, {} where there is none.
  """
  tensors: dict[str, np.ndarray]
  prefix: str
  params: dict[str, Any]
  geometry: dict[str, Any]


def read(path: pathlib.Path) -> File:
  """Returns a file's tensors; nothing in it is executed.

  Args:
    path: `.pth`, `.pt`, `.bin`, `.safetensors`, or the index of several
      `.safetensors`.

  Raises:
    UserError: no such file, a folder, an empty or damaged file.
  """
  if path.is_dir():
    raise errors.UserError(
        f'--path={path} is a folder; allowed: a weight file in it')
  if not path.is_file():
    raise errors.UserError(f'--path={path}: no such file')
  if not path.stat().st_size:
    raise errors.UserError(f'--path={path}: the file is empty')
  beside = path.with_name('config.json')
  geometry = _read_json(beside) if beside.is_file() else {}
  params: dict[str, Any] = {}
  if path.name.endswith(_INDEX):
    tensors = _read_shards(path)
  elif path.suffix == '.safetensors':
    tensors = _read_safetensors(path)
  else:
    content = torch_file.load(path)
    if not isinstance(content, dict):
      raise errors.UserError(
          f'{path}: holds a {type(content).__name__}; allowed: a state dict')
    given = content.get('params')
    params = dict(given) if isinstance(given, dict) else {}
    tensors = content.get('model', content)
    if not isinstance(tensors, dict):
      raise errors.UserError(f'{path}: its "model" is no state dict')
  for key, tensor in tensors.items():
    if not isinstance(tensor, np.ndarray):
      raise errors.UserError(
          f'{path}: {key!r} is a {type(tensor).__name__}; allowed: a tensor')
  prefix = ('module.' if tensors and all(
      key.startswith('module.') for key in tensors) else '')
  return File({key.removeprefix(prefix): tensor
               for key, tensor in tensors.items()}, prefix, params, geometry)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text())
  except ValueError as error:
    raise errors.UserError(f'{path}: not JSON: {error}') from error
  if not isinstance(content, dict):
    raise errors.UserError(f'{path}: allowed: an object')
  return content


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  import safetensors  # Only those who convert need it.
  from safetensors import numpy as safetensors_numpy
  try:
    return safetensors_numpy.load_file(path)
  except (safetensors.SafetensorError, ValueError) as error:
    raise errors.UserError(
        f'{path}: damaged or no safetensors file: {error}') from error


def _read_shards(path: pathlib.Path) -> dict[str, np.ndarray]:
  shards = _read_json(path).get('weight_map')
  if not isinstance(shards, dict):
    raise errors.UserError(f'{path}: has no "weight_map"')
  tensors: dict[str, np.ndarray] = {}
  for name in sorted(set(shards.values())):
    # A name, not a path: an index must not reach outside its folder.
    if pathlib.PurePath(name).name != name:
      raise errors.UserError(
          f'{path}: names {name!r}; allowed: a file beside it')
    tensors |= _read_safetensors(path.with_name(name))
  missing = sorted(set(shards) - set(tensors))
  if missing:
    raise errors.UserError(f'{path}: {missing[0]!r} is in none of its files')
  return tensors
