"""Dense maps, embeddings and LayerNorm.

Letters: B rows, T length (regions and text), D width. Parameters are float32;
LayerNorm and sums inside products are float32; activations are `config.dtype`.
"""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax.model import unseen

Initializer = Callable[..., jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def contract(equation: str, x: jax.Array, kernel: jax.Array,
             dtype: jnp.dtype | None = None) -> jax.Array:
  """Returns einsum(equation, x, kernel), summed in float32.

  Both factors are rounded to x's dtype. The backward pass rounds the incoming
  gradient too, so that all three products run on the matrix unit; XLA's own
  rule would multiply float32 by bfloat16, which no matrix unit does.

  Args:
    equation: 'left,right->out'; every letter of an operand is in the other or
      in the output.
    x: activations.
    kernel: float32 weights.
    dtype: of the result; None = x's.
  """
  return jnp.einsum(
      equation, x, kernel.astype(x.dtype),
      preferred_element_type=jnp.float32).astype(dtype or x.dtype)


def _contract_forward(equation, x, kernel, dtype):
  return contract(equation, x, kernel, dtype), (x, kernel)


def _contract_backward(equation, dtype, saved, gradient):
  del dtype
  x, kernel = saved
  left, rest = equation.split(',')
  right, out = rest.split('->')
  gradient = gradient.astype(x.dtype)
  x_gradient = jnp.einsum(
      f'{out},{right}->{left}', gradient, kernel.astype(x.dtype),
      preferred_element_type=jnp.float32)
  kernel_gradient = jnp.einsum(
      f'{left},{out}->{right}', x, gradient,
      preferred_element_type=jnp.float32)
  return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)


contract.defvjp(_contract_forward, _contract_backward)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """Returns x + bias in x's dtype; the bias' gradient is summed in float32.

  XLA's CPU compiler takes thirty times as long for a sum of bfloat16.
  """
  return x + bias.astype(x.dtype)


def _add_bias_backward(bias, gradient):
  rows = tuple(range(gradient.ndim - bias.ndim))
  return gradient, gradient.astype(jnp.float32).sum(rows).astype(bias.dtype)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), bias), _add_bias_backward)


def linear_init(fan_in: int) -> Initializer:
  """Returns U(±1/√fan_in), the release's initial values of linear layers."""
  bound = fan_in ** -0.5

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def identity_init(key: jax.Array, shape: tuple[int, int], dtype) -> jax.Array:
  """Returns an identity matrix, cut or padded to the shape."""
  del key
  return jnp.eye(shape[0], shape[1], dtype=dtype)


class Einsum(nn.Module):
  """A linear map written as an einsum.

  Attributes:
    equation: einsum of input and kernel, '...' not allowed.
    shape: of the kernel.
    axes: logical axis names of the kernel.
    bias_axes: how many trailing axes of the kernel the bias has; 0 = no bias.
    fan_in: number of inputs to one output, for the initial values.
    kernel_init: overrides the initial values of the kernel.
    contract: (x, kernel) -> y in place of `equation`.
  """
  equation: str
  shape: tuple[int, ...]
  axes: tuple[str, ...]
  fan_in: int
  bias_axes: int = 1
  kernel_init: Initializer | None = None
  contract: Callable[[jax.Array, jax.Array], jax.Array] | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = self.kernel_init or linear_init(self.fan_in)
    kernel = self.param(
        'kernel', nn.with_logical_partitioning(init, self.axes), self.shape,
        jnp.float32)
    y = (self.contract(x, kernel) if self.contract
         else contract(self.equation, x, kernel))
    if self.bias_axes:
      bias_init = nn.initializers.zeros if self.kernel_init else (
          linear_init(self.fan_in))
      bias = self.param(
          'bias', nn.with_logical_partitioning(
              bias_init, self.axes[-self.bias_axes:]),
          self.shape[-self.bias_axes:], jnp.float32)
      y = add_bias(y, bias)
    return y


class Table(nn.Module):
  """A table of learned vectors; initial values N(0, width^-0.5)."""
  rows: int
  width: int
  axis: str

  def setup(self):
    init = nn.initializers.normal(self.width ** -0.5)
    self.embedding = self.param(
        'embedding', nn.with_logical_partitioning(init, (self.axis, 'embed')),
        (self.rows, self.width), jnp.float32)

  def __call__(self, index: jax.Array) -> jax.Array:
    return jnp.take(self.embedding, index, axis=0, mode='clip')


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array,
               epsilon: float) -> jax.Array:
  """Returns LayerNorm over the last axis in x's dtype; keeps x alone.

  Autodiff would keep the float32 forms as well; see lean.py.
  """
  return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(x, scale, bias, epsilon):
  wide = x.astype(jnp.float32)
  mean = wide.mean(-1, keepdims=True)
  centred = wide - mean
  rate = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
  y = (centred * rate * scale + bias).astype(x.dtype)
  return y, (x, mean, rate, scale)


def _layer_norm_backward(epsilon, saved, gradient):
  del epsilon
  x, mean, rate, scale = saved
  x, mean, rate, scale = (
      unseen.again(kept, gradient) for kept in (x, mean, rate, scale))
  gradient = gradient.astype(jnp.float32)
  unit = (x.astype(jnp.float32) - mean) * rate
  rows = tuple(range(x.ndim - 1))
  scaled = gradient * scale
  x_gradient = rate * (
      scaled - scaled.mean(-1, keepdims=True)
      - unit * (scaled * unit).mean(-1, keepdims=True))
  return (x_gradient.astype(x.dtype), (gradient * unit).sum(rows),
          gradient.sum(rows))


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
  """LayerNorm over the last axis, in float32, returned in x's dtype.

  Attributes:
    epsilon: added to the variance.
  """
  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1:]
    axes = ('activation_embed',)
    scale = self.param('scale', nn.with_logical_partitioning(
        nn.initializers.ones, axes), width, jnp.float32)
    bias = self.param('bias', nn.with_logical_partitioning(
        nn.initializers.zeros, axes), width, jnp.float32)
    return layer_norm(x, scale, bias, self.epsilon)
