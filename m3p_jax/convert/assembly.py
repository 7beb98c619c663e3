"""From a file's tensors to the parameters of a whole model."""

from collections.abc import Mapping, Sequence
import functools
import pathlib
import re
from typing import Any, NamedTuple

from absl import logging
from flax import linen as nn
from flax import traverse_util
import jax
import numpy as np

from input_pipeline import errors
from input_pipeline.tensor_files import stored_array
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.convert import report
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

ModelConfig = model_config.ModelConfig
Tensors = dict[str, stored_array.StoredArray]
_NONE = re.compile('(?!)')


class Imported(NamedTuple):
  """A file as a checkpoint of ours.

  Attributes:
    params: unboxed, of the whole model; read and made when they are asked for
      (`deferred.make`).
    config: geometry.
    lines: what became of each tensor.
    unused: tensors that no part of the geometry reads, by their keys.
    options: the options that the file was trained with.
    prefix: of the file's keys.
    sha256: of each file that was read, by its name.
  """
  params: Any
  config: ModelConfig
  lines: list[report.Line]
  unused: Tensors
  options: dict[str, Any]
  prefix: str = ''
  sha256: Mapping[str, str] = {}


def check(tensors: Tensors, path: pathlib.Path,
          names: Sequence[names_lib.Name], shapes: names_lib.Shapes, *,
          optional: re.Pattern[str] = _NONE) -> None:
  """Raises UserError for the first missing, surplus or misshapen tensor.

  Args:
    tensors: of the file, those that are none of its known extras.
    path: of the file.
    names: what the geometry reads.
    shapes: of every tensor that may be there.
    optional: keys that may be absent, unless the geometry reads them.
  """
  needed = {name.key for name in names}
  for key, shape in shapes.items():
    if key not in tensors:
      if key in needed or not optional.match(key):
        raise errors.UserError(f'{path}: tensor {key!r} is missing')
    elif tensors[key].shape != shape:
      raise errors.UserError(
          f'{path}: {key!r} has shape {tensors[key].shape}; allowed: {shape}')
  for key in tensors:
    if key not in shapes:
      raise errors.UserError(
          f'{path}: tensor {key!r} {tensors[key].shape} belongs to no part of '
          'the model')


def assemble(names: Sequence[names_lib.Name],
             tensors: Tensors, config: ModelConfig, key: jax.Array,
             given: Mapping[str, np.ndarray] | None = None,
             ) -> tuple[Any, list[report.Line]]:
  """Returns (parameters, lines): what is not in the file is fresh.

  Args:
    names: of the file's format.
    tensors: of the file.
    config: geometry.
    key: random key of fresh parameters.
    given: more parameters, by path.
  """
  shapes = shapes_of(config)
  read_params = layout.stack(names, tensors, shapes) | dict(given or {})
  fresh = _draw(config, frozenset(read_params))(key)
  lines = [report.Line('used', name.key, tensors[name.key].shape)
           for name in names if name.key in tensors]
  lines += [report.Line('fresh', path, value.shape)
            for path, value in sorted(fresh.items())]
  return nested({**read_params, **fresh}), lines


@functools.lru_cache(maxsize=4)
def _draw(config: ModelConfig, read: frozenset[str]):
  """Returns the jitted function from a key to the parameters not in `read`.

  What is read is not drawn as well: the word table alone takes seconds.
  """

  def draw(key):
    params = layout.flatten(nn.unbox(m3p.init_params(config, key)))
    return {path: value for path, value in params.items() if path not in read}

  return jax.jit(draw)


def warn_of_odd_numbers(tensors: Tensors, path: pathlib.Path) -> None:
  """Warns of each tensor with a number that is not finite."""
  for key, tensor in tensors.items():
    if tensor.dtype.kind not in 'iub' and not all(
        np.isfinite(piece_N.astype(np.float32)).all()
        for piece_N in tensor.pieces()):
      logging.warning('%s: %s holds numbers that are not finite', path, key)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the tree of parameters by path; undoes `layout.flatten`."""
  return traverse_util.unflatten_dict(flat, sep='/')


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of our parameters by path."""
  return dict(_shapes_of(config))


@functools.lru_cache(maxsize=4)
def _shapes_of(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
  return {path: x.shape for path, x in layout.flatten(nn.unbox(
      m3p.abstract_params(config))).items()}
