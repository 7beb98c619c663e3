"""Arrays between a file's layout and ours.

Theirs: linear maps [out, in], heads not apart. Ours: kernels whose axes are
inputs then outputs, heads apart; layers stacked; tables padded with rows that
no id reaches.
"""

from collections.abc import Iterable, Mapping
import functools
import math
from typing import Any

from flax import linen as nn
from flax import traverse_util
import numpy as np

from m3p_jax.convert import names as names_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

# Paths whose first axis is padded to a multiple (see ModelConfig).
PADDED = ('tokens/embedding', 'token_bias')


def to_ours(tensor: np.ndarray, path: str, target: np.ndarray) -> None:
  """Writes a tensor of a file into (one layer of) our parameter.

  Args:
    tensor: theirs.
    path: of our parameter.
    target: of zeros: what a table is padded with.
  """
  if path.endswith('/kernel'):
    target[...] = tensor.T.reshape(target.shape)
  elif path in PADDED:
    target[:len(tensor)] = tensor
  else:
    target[...] = tensor.reshape(target.shape)


def to_theirs(array: np.ndarray, path: str,
              shape: tuple[int, ...]) -> np.ndarray:
  """Returns (one layer of) our parameter in a file's shape; undoes `to_ours`.
  """
  if path.endswith('/kernel'):
    return np.ascontiguousarray(array.reshape(shape[::-1]).T)
  if path in PADDED:
    array = array[:shape[0]]
  return np.ascontiguousarray(array).reshape(shape)


def their_shapes(names: Iterable[names_lib.Name],
                 shapes: Mapping[str, tuple[int, ...]], *,
                 vocab_size: int) -> names_lib.Shapes:
  """Returns the shape that each named tensor must have.

  Args:
    names: of a format.
    shapes: of our parameters, by path.
    vocab_size: rows of the word table that mean something.
  """
  found: names_lib.Shapes = {}
  for key, path, layer in names:
    shape = shapes[path] if layer is None else shapes[path][1:]
    if path.endswith('/kernel'):
      # Only the output map of attention has two axes of inputs.
      num_axes = 2 if path.endswith('attention/out/kernel') else 1
      found[key] = (math.prod(shape[num_axes:]), math.prod(shape[:num_axes]))
    elif path in PADDED:
      found[key] = (vocab_size, *shape[1:])
    elif path.endswith('/embedding'):
      found[key] = shape
    else:
      found[key] = (math.prod(shape),)
  return found


def stack(names: Iterable[names_lib.Name], tensors: Mapping[str, np.ndarray],
          shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Returns our parameters by path, of the named tensors that are there.

  Args:
    names: of the format that `tensors` are in.
    tensors: by key.
    shapes: of our parameters, by path.
  """
  found: dict[str, np.ndarray] = {}
  for key, path, layer in names:
    if key in tensors:
      if path not in found:
        found[path] = np.zeros(shapes[path], np.float32)
      # A view, of an array without axes as well.
      to_ours(tensors[key], path, found[path][... if layer is None else layer])
  return found


def unstack(names: Iterable[names_lib.Name], params: Mapping[str, np.ndarray],
            shapes: names_lib.Shapes) -> dict[str, np.ndarray]:
  """Returns tensors by key, of our parameters by path; undoes `stack`."""
  return {key: to_theirs(
      params[path] if layer is None else params[path][layer], path, shapes[key])
          for key, path, layer in names}


@functools.lru_cache(maxsize=4)
def shapes_of(config: model_config.ModelConfig
              ) -> Mapping[str, tuple[int, ...]]:
  """Returns the shapes of our parameters by path."""
  return {path: leaf.shape for path, leaf in flatten(nn.unbox(
      m3p.abstract_params(config))).items()}


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {'a/b/c': leaf} of nested parameters."""
  return traverse_util.flatten_dict(tree, sep='/')


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the tree of parameters by path; undoes `flatten`."""
  return traverse_util.unflatten_dict(flat, sep='/')
