"""Converted checkpoints on disk, with what the model does not read."""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from m3p_jax import checkpoint as checkpoint_lib
from m3p_jax.convert import geometry
from m3p_jax.convert import report
from m3p_jax.convert import safetensors_file
from m3p_jax.model import config as model_config

SAFETENSORS = 'model.safetensors'
_ASIDE = 'unused.safetensors'
_REPORT = 'import.json'


class Aside(NamedTuple):
  """What an import keeps for writing the file back.

  Attributes:
    tensors: those that no part of the model reads, by key.
    prefix: of the file's keys.
  """
  tensors: safetensors_file.Tensors
  prefix: str

  @property
  def refiner_layers(self) -> int:
    """Layers of the region refiner among the tensors."""
    return geometry.refiner_layers(self.tensors)


def write_checkpoint(path: pathlib.Path, params: Any,
                     config: model_config.ModelConfig, *,
                     languages: Sequence[str], aside: Aside,
                     lines: Sequence[report.Line],
                     sha256: Mapping[str, str],
                     manifest: Mapping[str, Any] | None = None) -> None:
  """Writes a checkpoint that every mode of main.py starts from."""
  checkpoint_lib.save_weights(
      path, params, config,
      dict(manifest or {}) | {'languages': list(languages)})
  (path / _REPORT).write_text(json.dumps(
      {'sha256': dict(sha256), 'prefix': aside.prefix,
       'tensors': report.to_json(lines)}, indent=1) + '\n')
  if aside.tensors:
    safetensors_file.write(path / _ASIDE, aside.tensors, {})


def read_aside(checkpoint: str | pathlib.Path) -> Aside:
  """Returns what an import kept; nothing where there was none."""
  path, is_one = checkpoint_lib.locate(checkpoint)
  tensors: safetensors_file.Tensors = {}
  prefix = 'module.'
  if is_one and (path / _REPORT).exists():
    prefix = json.loads((path / _REPORT).read_text())['prefix']
  if is_one and (path / _ASIDE).exists():
    tensors = safetensors_file.read(path / _ASIDE)
  return Aside(tensors, prefix)

