"""Weight files on disk: PyTorch's containers and safetensors."""

from collections.abc import Mapping
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from input_pipeline import errors
from input_pipeline import paths
from input_pipeline.weights import pickles

Tensors = dict[str, np.ndarray]
_INDEX = '.index.json'


class File(NamedTuple):
  """What a weight file holds.

  Attributes:
    tensors: by key, without `prefix`.
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
  """Returns a file's content; nothing in it is executed.

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
    tensors = read_safetensors(path)
  else:
    tensors, params = _read_torch(path)
  _check_tensors(tensors, path)
  prefix = ('module.' if tensors and all(
      key.startswith('module.') for key in tensors) else '')
  return File({key.removeprefix(prefix): tensor
               for key, tensor in tensors.items()}, prefix, params, geometry,
              {file.name: _sha256(file) for file in files})


def read_safetensors(path: pathlib.Path) -> Tensors:
  """Returns a file's tensors; UserError where it is damaged."""
  try:
    if paths.is_url(path):  # Ours: the package reads no bfloat16 from bytes.
      return safetensors_numpy.load(path.read_bytes())
    return safetensors_numpy.load_file(path)
  # Of what is wrong with a file, the package raises several kinds.
  except (safetensors.SafetensorError, ArithmeticError, AttributeError,
          LookupError, OSError, TypeError, ValueError) as error:
    raise errors.UserError(
        f'{path}: damaged or no safetensors file: {error}') from error


def write_safetensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray],
                      metadata: Mapping[str, str] | None = None) -> None:
  """Writes a file; `metadata` goes into its header."""
  # The package writes the memory that an array begins at, whatever its order.
  # Its own way to write files leaves them readable to their owner alone.
  path.write_bytes(safetensors_numpy.save(
      {key: np.asarray(tensor, order='C') for key, tensor in tensors.items()},
      dict(metadata or {})))


def write_torch(path: pathlib.Path, tensors: Mapping[str, np.ndarray],
                options: Mapping[str, Any] | None = None) -> None:
  """Writes {'model': tensors, 'params': options}, or the tensors alone.

  They are float32 in the file; entries that are one object share one storage.

  Raises:
    UserError: PyTorch is not installed.
  """
  try:
    import torch  # Optional: only these exports need it.
  except ImportError as error:
    raise errors.UserError(
        '--to=m3p and --to=volta write with PyTorch, which is not installed; '
        'run: python -m pip install torch') from error
  made = {id(tensor): torch.from_numpy(np.array(tensor, np.float32, order='C'))
          for tensor in tensors.values()}
  model = {key: made[id(tensor)] for key, tensor in tensors.items()}
  torch.save(model if options is None else
             {'model': model, 'params': dict(options)}, path)


def _read_torch(path: pathlib.Path) -> tuple[Tensors, dict[str, Any]]:
  """Returns the tensors and options of a file."""
  content = pickles.load_torch(path)
  if not isinstance(content, dict):
    raise errors.UserError(
        f'{path}: holds a {type(content).__name__}; allowed: a state dict')
  options = content.get('params')
  tensors = content.get('model', content)
  if not isinstance(tensors, dict):
    raise errors.UserError(f'{path}: its "model" is no state dict')
  return tensors, dict(options) if isinstance(options, dict) else {}


def _check_tensors(tensors: Mapping[Any, Any], path: pathlib.Path) -> None:
  for key, tensor in tensors.items():
    if not isinstance(tensor, np.ndarray):
      raise errors.UserError(
          f'{path}: {key!r} is a {type(tensor).__name__}; allowed: a tensor')
    if not isinstance(key, str):
      raise errors.UserError(
          f'{path}: names a tensor {key!r}; allowed: a text')
    if tensor.dtype.kind not in 'biuf' and tensor.dtype != ml_dtypes.bfloat16:
      raise errors.UserError(
          f'{path}: {key!r} has dtype {tensor.dtype}; allowed: whole numbers, '
          'float64, float32, float16, bfloat16')


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
    tensors |= read_safetensors(file)
  missing = sorted(set(shards) - set(tensors))
  if missing:
    raise errors.UserError(f'{path}: {missing[0]!r} is in none of its files')
  return tensors, files
