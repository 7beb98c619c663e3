"""Runs a TensorFlow.js graph model in JAX, with the operations of CenterNet.

Such a model is a JSON list of operations and a file of weights. Nothing in it
is executed: each operation is looked up in a short table.
Letters: B pictures, H and W the grid's height and width, F feature, O output
feature, K kernel.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from input_pipeline import errors
from input_pipeline.vision import efficientnet

_DTYPES = {'float32': np.float32, 'float16': np.float16, 'int32': np.int32}


class Graph(NamedTuple):
  """A graph model.

  Attributes:
    nodes: name → operation, each after those it reads.
    weights: name → float32 array.
    constants: name → whole numbers that shape the computation: axes, sizes.
  """
  nodes: dict[str, dict[str, Any]]
  weights: dict[str, np.ndarray]
  constants: dict[str, np.ndarray]


def load(path: str | os.PathLike[str]) -> Graph:
  """Returns the model of a JSON file, whose weights lie beside it."""
  path = pathlib.Path(path)
  try:
    model = json.loads(path.read_text())
    nodes = {node['name']: node for node in model['modelTopology']['node']}
    arrays: dict[str, np.ndarray] = {}
    for group in model['weightsManifest']:
      data = b''.join((path.parent / pathlib.Path(name).name).read_bytes()
                      for name in group['paths'])
      arrays |= _split(data, group['weights'])
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise errors.UserError(
        f'{path} is no graph model of TensorFlow.js: {error!r}') from error
  return Graph(
      nodes,
      {name: array.astype(np.float32) for name, array in arrays.items()
       if array.dtype.kind == 'f'},
      {name: array for name, array in arrays.items()
       if array.dtype.kind == 'i'})


def _split(data: bytes, weights: Sequence[Mapping[str, Any]],
           ) -> dict[str, np.ndarray]:
  """Returns the arrays that lie one after the other in the weights' file."""
  arrays, offset = {}, 0
  for weight in weights:
    stored = weight.get('quantization', weight)
    array = np.frombuffer(data, _DTYPES[stored['dtype']],
                          math.prod(weight['shape']), offset)
    arrays[weight['name']] = array.reshape(weight['shape'])
    offset += array.nbytes
  if offset != len(data):
    raise ValueError(f'{len(data)} bytes of weights, {offset} are described')
  return arrays


def run(graph: Graph, weights: Mapping[str, Any], inputs: Mapping[str, Any],
        outputs: Sequence[str]) -> list[jax.Array]:
  """Returns the values of the nodes `outputs`.

  Args:
    graph: its nodes and constants are read.
    weights: those of the graph, which is jitted with them as arguments.
    inputs: placeholder → value.
    outputs: names of nodes.
  """
  values = dict(inputs)

  def value(name: str) -> Any:
    # A name may carry the number of the output: all here have one.
    name = name.partition(':')[0]
    if name in graph.constants:
      return graph.constants[name]
    return weights[name] if name in weights else values[name]

  for name in _needed(graph, outputs):
    node = graph.nodes[name]
    if node['op'] not in _OPERATIONS:
      raise errors.UserError(f'graph model: operation {node["op"]!r}; allowed: '
                             f'{", ".join(sorted(_OPERATIONS))}')
    values[name] = _OPERATIONS[node['op']](
        node.get('attr', {}), *map(value, node.get('input', ())))
  return [values[name] for name in outputs]


def _needed(graph: Graph, outputs: Sequence[str]) -> list[str]:
  """Returns the operations that the outputs depend on, in order."""
  wanted = set(outputs)
  for name, node in reversed(graph.nodes.items()):
    if name in wanted:
      wanted.update(source.partition(':')[0]
                    for source in node.get('input', ()))
  return [name for name, node in graph.nodes.items() if name in wanted
          and node['op'] not in ('Const', 'Placeholder')]


def _texts(attributes: Mapping[str, Any], name: str) -> list[str]:
  """Returns an attribute of strings, which are stored in base 64."""
  found = attributes.get(name, {})
  coded = [found['s']] if 's' in found else found.get('list', {}).get('s', ())
  return [base64.b64decode(text).decode() for text in coded]


def _finish(attributes: Mapping[str, Any], x: jax.Array,
            biases: Sequence[jax.Array]) -> jax.Array:
  """Returns what a convolution's fused operations make of its result."""
  for operation in _texts(attributes, 'fused_ops'):
    x = x + biases[0][None, None, None] if operation == 'BiasAdd' else (
        _ACTIVATIONS[operation](x))
  return x


def _convolve(attributes: Mapping[str, Any], x_BHWF: jax.Array,
              weights_KKFO: jax.Array, *biases: jax.Array) -> jax.Array:
  strides = tuple(map(int, attributes['strides']['list']['i']))[1:3]
  if weights_KKFO.shape[:2] == (1, 1) and strides == (1, 1):
    x_BHWO = jnp.einsum('BHWF,FO->BHWO', x_BHWF, weights_KKFO[0, 0])
  else:
    (padding,) = _texts(attributes, 'padding')
    x_BHWO = lax.conv_general_dilated(
        x_BHWF, weights_KKFO, strides, padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  return _finish(attributes, x_BHWO, biases)


def _convolve_depthwise(attributes: Mapping[str, Any], x_BHWF: jax.Array,
                        weights_KKF1: jax.Array,
                        *biases: jax.Array) -> jax.Array:
  stride = int(attributes['strides']['list']['i'][1])
  weights_KK1F = jnp.swapaxes(weights_KKF1, 2, 3)
  x_BHWF = efficientnet.convolve_depthwise(
      {'w': weights_KK1F, 'b': jnp.zeros((1, 1, 1, 1))}, x_BHWF,
      stride=stride)
  return _finish(attributes, x_BHWF, biases)


def _double(x_BHWF: jax.Array, axis: int) -> jax.Array:
  """Returns twice as many positions: each, then its mean with the next."""
  after = jnp.concatenate([
      lax.slice_in_dim(x_BHWF, 1, None, axis=axis),
      lax.slice_in_dim(x_BHWF, -1, None, axis=axis)], axis)
  shape = list(x_BHWF.shape)
  shape[axis] *= 2
  return jnp.stack([x_BHWF, (x_BHWF + after) / 2], axis + 1).reshape(shape)


def _resize(attributes: Mapping[str, Any], x_BHWF: jax.Array,
            size: np.ndarray) -> jax.Array:
  """Returns the grid at twice its size, by TensorFlow's first convention."""
  shifted = any(attributes.get(name, {}).get('b')
                for name in ('align_corners', 'half_pixel_centers'))
  if shifted or [2 * n for n in x_BHWF.shape[1:3]] != size.tolist():
    raise errors.UserError(f'graph model: ResizeBilinear from '
                           f'{x_BHWF.shape[1:3]} to {size.tolist()}; allowed: '
                           'twice the size, corners not aligned')
  return _double(_double(x_BHWF, 1), 2)


_ACTIVATIONS: dict[str, Callable] = {
    'Relu': jax.nn.relu, 'Relu6': jax.nn.relu6, 'Sigmoid': jax.nn.sigmoid,
    'Identity': lambda x: x}
# Operation → (attributes, inputs …) → value.
_OPERATIONS: dict[str, Callable] = {
    **{name: lambda _, x, fn=fn: fn(x) for name, fn in _ACTIVATIONS.items()},
    'Add': lambda _, x, y: x + y,
    'AddV2': lambda _, x, y: x + y,
    'Mul': lambda _, x, y: x * y,
    'Mean': lambda _, x, axes: x.mean(tuple(axes.tolist()), keepdims=True),
    'ConcatV2': lambda _, *args: jnp.concatenate(args[:-1], int(args[-1])),
    'Conv2D': _convolve,
    '_FusedConv2D': _convolve,
    'DepthwiseConv2dNative': _convolve_depthwise,
    'FusedDepthwiseConv2dNative': _convolve_depthwise,
    'ResizeBilinear': _resize}
