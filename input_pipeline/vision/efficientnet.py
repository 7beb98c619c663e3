"""EfficientNet-Lite, pre-trained on ImageNet, as one pure function in JAX.

Letters: B pictures, H and W the grid's height and width, F feature, O output
feature, I input feature, K kernel, R regions, C class.

Source: Tan & Le 2019 (EfficientNet); the Lite variant has no squeeze-and-
excitation, ReLU6 for swish, and a fixed stem and head. The geometry is that
of tensorflow/tpu, efficientnet/lite/efficientnet_lite_builder.py.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from input_pipeline import errors


class Network(NamedTuple):
  """The geometry of one size; kernels and widths are those of its weights.

  Attributes:
    picture_size: the side that it was trained on, in pixels.
    num_blocks: inverted residual blocks.
    strided_blocks: those that halve the sides.
  """
  picture_size: int
  num_blocks: int
  strided_blocks: tuple[int, ...]

  @property
  def grid_size(self) -> int:
    """The grid's side: five times half, rounded up."""
    return -(-self.picture_size // 32)


NETWORKS = {'efficientnet-lite0': Network(224, 16, (1, 3, 5, 11)),
            'efficientnet-lite2': Network(260, 21, (1, 4, 7, 15))}
FEATURE_DIM = 1280
NUM_CLASSES = 1000

# Inputs are (x − 127) / 128; BatchNorm's epsilon is TensorFlow's.
_MEAN, _SCALE, _EPSILON = 127.0, 128.0, 1e-3

Params = dict[str, Any]


def fold_weights(state: Mapping[str, np.ndarray],
                 network: str = 'efficientnet-lite0') -> Params:
  """Returns a PyTorch checkpoint's parameters, BatchNorm folded into them.

  A tensor that is missing or left over is a UserError.
  """
  left = {k for k in state if not k.endswith('num_batches_tracked')}

  def take(name: str) -> np.ndarray:
    if name not in left:
      raise errors.UserError(f'{network} has no tensor {name!r}')
    left.remove(name)
    return np.asarray(state[name], np.float32)

  def fold(convolution: str, norm: str) -> Params:
    weights_OIHW = take(f'{convolution}.weight')
    scale_O = take(f'{norm}.weight') / np.sqrt(
        take(f'{norm}.running_var') + _EPSILON)
    bias_O = take(f'{norm}.bias') - take(f'{norm}.running_mean') * scale_O
    weights_OIHW = weights_OIHW * scale_O[:, None, None, None]
    return {'w': weights_OIHW.transpose(2, 3, 1, 0),
            'b': bias_O[None, None, None]}

  params: Params = {'stem': fold('_conv_stem', '_bn0')}
  for i in range(NETWORKS[network].num_blocks):
    prefix = f'_blocks.{i}.'
    block = {'depthwise': fold(f'{prefix}_depthwise_conv', f'{prefix}_bn1'),
             'project': fold(f'{prefix}_project_conv', f'{prefix}_bn2')}
    if f'{prefix}_expand_conv.weight' in left:
      block['expand'] = fold(f'{prefix}_expand_conv', f'{prefix}_bn0')
    params[f'block_{i}'] = block
  params['head'] = fold('_conv_head', '_bn1')
  params['classes'] = {'w': take('_fc.weight').T,
                       'b': take('_fc.bias')[None, None]}
  if left:
    raise errors.UserError(f'unknown tensors in {network}: {left}')
  return params


def _pointwise(params: Params, x_BHWF: jax.Array) -> jax.Array:
  """Returns the 1×1 convolution.

  In float32: bfloat16 was slower on a CPU with AMX (54 against 114 pictures a
  second in batches of 32), since every activation had to be converted.
  """
  return jnp.einsum('BHWF,FO->BHWO', x_BHWF, params['w'][0, 0]) + params['b']


def convolve_depthwise(params: Params, x_BHWF: jax.Array, *,
                       stride: int) -> jax.Array:
  """Returns the depthwise convolution, as k·k shifted multiply-adds.

  XLA's grouped convolution is over ten times slower on a CPU.
  """
  weights_KK111F = params['w'][:, :, None, None]
  kernel = weights_KK111F.shape[0]
  size = x_BHWF.shape[1]
  reach = (-(-size // stride) - 1) * stride + 1
  # TensorFlow's SAME: the odd pixel goes to the end.
  padding = max(reach - 1 + kernel - size, 0)
  pads = padding // 2, padding - padding // 2
  x_BHWF = jnp.pad(x_BHWF, ((0, 0), pads, pads, (0, 0)))
  total_BHWF = params['b']
  for i in range(kernel):
    for j in range(kernel):
      shifted_BHWF = x_BHWF[:, i:i + reach:stride, j:j + reach:stride, :]
      total_BHWF = total_BHWF + shifted_BHWF * weights_KK111F[i, j]
  return total_BHWF


def _relu6(x: jax.Array) -> jax.Array:
  return jnp.clip(x, 0.0, 6.0)


def extract_grid(params: Params, pictures_BHW3: jax.Array,
                 network: str = 'efficientnet-lite0') -> jax.Array:
  """Returns the grid before pooling, float32 [B, H, W, 1280].

  A cell for each 32 pixels of a side of the uint8 RGB: 7×7 of 224×224, which
  Lite0 was trained on, 9×9 of 260×260.
  """
  x_BHWF = (pictures_BHW3.astype(jnp.float32) - _MEAN) / _SCALE
  x_BHWF = lax.conv_general_dilated(
      x_BHWF, params['stem']['w'], (2, 2), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  x_BHWF = _relu6(x_BHWF + params['stem']['b'])
  for i in range(NETWORKS[network].num_blocks):
    block = params[f'block_{i}']
    stride = 2 if i in NETWORKS[network].strided_blocks else 1
    y_BHWF = x_BHWF
    if 'expand' in block:
      y_BHWF = _relu6(_pointwise(block['expand'], y_BHWF))
    y_BHWF = _relu6(
        convolve_depthwise(block['depthwise'], y_BHWF, stride=stride))
    y_BHWF = _pointwise(block['project'], y_BHWF)
    if y_BHWF.shape == x_BHWF.shape:
      y_BHWF = y_BHWF + x_BHWF
    x_BHWF = y_BHWF
  return _relu6(_pointwise(params['head'], x_BHWF))


def classify(params: Params, features_BRF: jax.Array) -> jax.Array:
  """Returns ImageNet logits [B, R, 1000] of pooled features [B, R, 1280]."""
  logits_BRC = jnp.einsum('BRF,FC->BRC', features_BRF, params['classes']['w'])
  return logits_BRC + params['classes']['b']
