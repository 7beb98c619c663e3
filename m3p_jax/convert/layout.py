"""Arrays between a file's layout and ours.

Theirs: linear maps [out, in], heads not apart. Ours: kernels whose axes are
inputs then outputs, heads apart; layers stacked; tables padded with rows that
no id reaches.
"""

import collections
from collections.abc import Iterable, Mapping
import functools
import math
from typing import Any

from flax import traverse_util
import numpy as np

from input_pipeline.tensor_files import stored_array
from m3p_jax.convert import names as names_lib
from m3p_jax.saving import deferred

# Paths whose first axis is padded to a multiple (see ModelConfig).
PADDED = ('tokens/embedding', 'token_bias')


def to_ours(tensor: stored_array.StoredArray, path: str,
            target: np.ndarray) -> None:
  """Writes a tensor of a file into (one layer of) our parameter.

  Args:
    tensor: theirs.
    path: of our parameter.
    target: contiguous, of zeros: what a table is padded with.
  """
  if path.endswith('/kernel'):
    target[...] = tensor.read().T.reshape(target.shape)
  elif path in PADDED:
    tensor.copy_to(target[:tensor.shape[0]])
  else:
    tensor.copy_to(target)


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


def stack(names: Iterable[names_lib.Name],
          tensors: Mapping[str, stored_array.StoredArray],
          shapes: Mapping[str, tuple[int, ...]],
          ) -> dict[str, deferred.Deferred]:
  """Returns our parameters by path, of the named tensors that are there.

  Args:
    names: of the format that `tensors` are in.
    tensors: by key.
    shapes: of our parameters, by path.
  """
  parts: dict[str, list] = collections.defaultdict(list)
  for key, path, layer in names:
    if key in tensors:
      parts[path].append((tensors[key], layer))

  def make(path):
    array = np.zeros(shapes[path], np.float32)
    for tensor, layer in parts[path]:
      to_ours(tensor, path, array if layer is None else array[layer])
    return array

  return {path: deferred.Deferred(
      shapes[path], functools.partial(make, path)) for path in list(parts)}


def unstack(names: Iterable[names_lib.Name], params: Mapping[str, np.ndarray],
            shapes: names_lib.Shapes) -> dict[str, deferred.Deferred]:
  """Returns tensors by key, of our parameters by path; undoes `stack`."""

  def make(key, path, layer):
    array = params[path] if layer is None else params[path][layer]
    return to_theirs(array, path, shapes[key])

  return {name.key: deferred.Deferred(
      shapes[name.key], functools.partial(make, *name)) for name in names}


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {'a/b/c': leaf} of nested parameters."""
  return traverse_util.flatten_dict(tree, sep='/')
