"""Arrays between a file's layout and ours.

Theirs: linear maps [out, in], heads not apart. Ours: kernels whose axes are
inputs then outputs, heads apart; layers stacked; tables padded with rows that
no id reaches.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import numpy as np

from m3p_jax.convert import names as names_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

ModelConfig = model_config.ModelConfig
Shapes = dict[str, tuple[int, ...]]
# Paths whose first axis is padded to a multiple (see ModelConfig).
_PADDED = ('tokens/embedding', 'token_bias')
_KINDS = {'used': 'used', 'unused': 'kept aside, read by no forward pass',
          'fresh': 'not there, initialised', 'left out': 'left out'}


class Line(NamedTuple):
  """What became of one tensor, or of a parameter that no tensor gave.

  Attributes:
    kind: 'used', 'unused', 'fresh' or 'left out'.
    name: of the tensor; of our parameter where it is fresh.
    shape: of it.
    note: what is special about it; '' if nothing.
  """
  kind: str
  name: str
  shape: tuple[int, ...]
  note: str = ''


def report(lines: Sequence[Line]) -> str:
  """Returns the lines as text, a section a kind."""
  parts = []
  for kind, title in _KINDS.items():
    of_kind = [line for line in lines if line.kind == kind]
    if of_kind:
      parts.append(f'{len(of_kind)} {title}:')
    parts += [f'  {line.name} {list(line.shape)}'
              + (f': {line.note}' if line.note else '') for line in of_kind]
  return '\n'.join(parts)


def their_shapes(names: Iterable[names_lib.Name],
                 shapes: Mapping[str, tuple[int, ...]], *,
                 vocab_size: int) -> Shapes:
  """Returns the shape that each named tensor must have, given ours by path."""
  found: Shapes = {}
  for key, path, layer in names:
    shape = shapes[path] if layer is None else shapes[path][1:]
    if path.endswith('/kernel'):
      # Only the output map of attention has two axes of inputs.
      num_axes = 2 if path.endswith('attention/out/kernel') else 1
      found[key] = (math.prod(shape[num_axes:]), math.prod(shape[:num_axes]))
    elif path in _PADDED:
      found[key] = (vocab_size, *shape[1:])
    elif path.endswith('/embedding'):
      found[key] = shape
    else:
      found[key] = (math.prod(shape),)
  return found


def m3p_shapes(config: ModelConfig, *, refiner_layers: int = 6) -> Shapes:
  """Returns the shapes of the release's full strict set, dead parts included.

  The set has `refiner_layers`, whether the geometry uses them or not.
  """
  full = dataclasses.replace(config, decoder=True, caption_match=True,
                             refiner_layers=refiner_layers)
  shapes = their_shapes(names_lib.m3p(full), shapes_of(full),
                        vocab_size=config.vocab_size)
  for copy, original in names_lib.TIED.items():
    shapes[copy] = shapes[original]
  # What no forward pass of the release reads (its own spelling).
  width = config.width
  maps = {'image_embeddings.image_distbution_embeddings':
              (width, config.num_region_classes),
          'cross_alignment.align_output': (width, width)}
  for part in ('att_weight_c', 'att_weight_q', 'att_weight_cq'):
    maps[f'cross_alignment.{part}'] = (1, width)
  norms = ['cross_alignment.layer_norm']
  for i in range(2):
    for part in ('x_to_mu', 'x_to_logvar'):
      maps[f'latent_transforms.{i}.{part}'] = (width, width)
    maps[f'latent_transforms.{i}.out_dense'] = (width, 2 * width)
    for part in ('dense', 'dense_mu'):
      maps[f'original_transforms.{i}.{part}'] = (width, width)
    norms.append(f'original_transforms.{i}.LayerNorm')
  for key, shape in maps.items():
    shapes |= {f'{key}.weight': shape, f'{key}.bias': shape[:1]}
  for key in norms:
    shapes |= {f'{key}.weight': (width,), f'{key}.bias': (width,)}
  return shapes


def stack(names: Iterable[names_lib.Name], tensors: Mapping[str, np.ndarray],
          shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Returns our parameters by path, of the named tensors that are there.

  A table may have fewer rows than ours, by `shapes`: the rest is zero.
  """
  found: dict[str, np.ndarray] = {}
  for key, path, layer in names:
    if key not in tensors:
      continue
    if path not in found:
      found[path] = np.zeros(shapes[path], np.float32)
    # A view, of an array without axes as well.
    target = found[path][... if layer is None else layer]
    if path.endswith('/kernel'):
      target[...] = tensors[key].T.reshape(target.shape)
    elif path in _PADDED:
      target[:len(tensors[key])] = tensors[key]
    else:
      target[...] = tensors[key].reshape(target.shape)
  return found


def unstack(names: Iterable[names_lib.Name], params: Mapping[str, np.ndarray],
            shapes: Shapes) -> dict[str, np.ndarray]:
  """Returns tensors by key, of our parameters by path; undoes `stack`."""
  found = {}
  for key, path, layer in names:
    array = params[path] if layer is None else params[path][layer]
    if path.endswith('/kernel'):
      array = array.reshape(shapes[key][::-1]).T
    elif path in _PADDED:
      array = array[:shapes[key][0]]
    found[key] = np.ascontiguousarray(array).reshape(shapes[key])
  return found


def fresh(config: ModelConfig, read_paths: Collection[str],
          key: jax.Array) -> dict[str, jax.Array]:
  """Returns first values, by path, of the parameters that are not read."""
  return _draw(config, frozenset(read_paths))(key)


@functools.lru_cache(maxsize=4)
def _draw(config: ModelConfig, read_paths: frozenset[str]):
  # What is read is not drawn as well: the word table alone takes seconds.

  def draw(key):
    params = flatten(nn.unbox(m3p.init_params(config, key)))
    return {path: value for path, value in params.items()
            if path not in read_paths}

  return jax.jit(draw)


@functools.lru_cache(maxsize=8)
def shapes_of(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
  """Returns the shapes of our parameters by path."""
  return {path: leaf.shape for path, leaf in flatten(nn.unbox(
      m3p.abstract_params(config))).items()}


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {'a/b/c': leaf} of nested parameters."""
  return traverse_util.flatten_dict(tree, sep='/')


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the tree of parameters by path; undoes `flatten`."""
  return traverse_util.unflatten_dict(flat, sep='/')
