"""The tensors of a weight file: PyTorch's containers and safetensors."""

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from input_pipeline import errors
from input_pipeline.tensor_files import stored_array
from input_pipeline.tensor_files import torch_file
from m3p_jax.convert import safetensors_file

Tensors = safetensors_file.Tensors
_INDEX = '.index.json'


class File(NamedTuple):
  """What a weight file holds.

  Attributes:
    tensors: by key, without `prefix`; their numbers stay in the file.
    prefix: `module.` in M3P's training checkpoints, else ''.
    params: the options it was trained with, {} where it has none.
    geometry: config.json beside the file, {} where there is none.
    sha256: of each file that was read, by its name.
  """
  tensors: Tensors
  prefix: str
  params: dict[str, Any]
  geometry: dict[str, Any]
  sha256: dict[str, str]


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
  files = [path]
  if path.name.endswith(_INDEX):
    tensors, shards = _read_shards(path)
    files += shards
  elif path.suffix == '.safetensors':
    tensors = safetensors_file.read(path)
  else:
    content = torch_file.scan(path)
    if not isinstance(content, dict):
      raise errors.UserError(
          f'{path}: holds a {type(content).__name__}; allowed: a state dict')
    given = content.get('params')
    params = dict(given) if isinstance(given, dict) else {}
    tensors = content.get('model', content)
    if not isinstance(tensors, dict):
      raise errors.UserError(f'{path}: its "model" is no state dict')
  for key, tensor in tensors.items():
    if not isinstance(tensor, stored_array.StoredArray):
      raise errors.UserError(
          f'{path}: {key!r} is a {type(tensor).__name__}; allowed: a tensor')
    if not isinstance(key, str):
      raise errors.UserError(
          f'{path}: names a tensor {key!r}; allowed: a text')
  prefix = ('module.' if tensors and all(
      key.startswith('module.') for key in tensors) else '')
  return File({key.removeprefix(prefix): tensor
               for key, tensor in tensors.items()}, prefix, params, geometry,
              {file.name: _sha256(file) for file in files})


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise errors.UserError(f'{path}: not JSON: {error}') from error
  if not isinstance(content, dict):
    raise errors.UserError(f'{path}: allowed: an object')
  return content


def _read_shards(path: pathlib.Path) -> tuple[Tensors, list[pathlib.Path]]:
  """Returns the tensors of several files, and the files."""
  shards = _read_json(path).get('weight_map')
  if not isinstance(shards, dict):
    raise errors.UserError(f'{path}: has no "weight_map"')
  for name in shards.values():
    # A name, not a path: an index must not reach outside its folder.
    if not isinstance(name, str) or pathlib.PurePath(name).name != name:
      raise errors.UserError(
          f'{path}: names {name!r}; allowed: a file beside it')
  files = [path.with_name(name) for name in sorted(set(shards.values()))]
  tensors: Tensors = {}
  for file in files:
    if not file.is_file():
      raise errors.UserError(f'{path}: names {file.name!r}, which is not there')
    tensors |= safetensors_file.read(file)
  missing = sorted(set(shards) - set(tensors))
  if missing:
    raise errors.UserError(f'{path}: {missing[0]!r} is in none of its files')
  return tensors, files
