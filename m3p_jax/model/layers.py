"""Layers of M3P as einsums: dense maps, embeddings, LayerNorm, attention.

Letters: B rows, T length (regions and text), D width, H heads, K head size,
M MLP width. Parameters are float32; LayerNorm, softmax and sums inside
products are float32; activations are `config.dtype`.
"""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax.model import config as model_config

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
  """
  equation: str
  shape: tuple[int, ...]
  axes: tuple[str, ...]
  fan_in: int
  bias_axes: int = 1
  kernel_init: Initializer | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = self.kernel_init or linear_init(self.fan_in)
    kernel = self.param(
        'kernel', nn.with_logical_partitioning(init, self.axes), self.shape,
        jnp.float32)
    y = contract(self.equation, x, kernel)
    if self.bias_axes:
      bias_init = nn.initializers.zeros if self.kernel_init else (
          linear_init(self.fan_in))
      bias = self.param(
          'bias', nn.with_logical_partitioning(
              bias_init, self.axes[-self.bias_axes:]),
          self.shape[-self.bias_axes:], jnp.float32)
      y = y + bias.astype(y.dtype)
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


class LayerNorm(nn.Module):
  """LayerNorm over the last axis, in float32, returned in x's dtype."""
  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1:]
    axes = ('activation_embed',)
    scale = self.param('scale', nn.with_logical_partitioning(
        nn.initializers.ones, axes), width, jnp.float32)
    bias = self.param('bias', nn.with_logical_partitioning(
        nn.initializers.zeros, axes), width, jnp.float32)
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    variance = jnp.square(centred).mean(-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias
    return y.astype(x.dtype)


def attend(c: model_config.ModelConfig, hidden_BTD: jax.Array,
           mask_BT: jax.Array, *, deterministic: bool) -> jax.Array:
  """Returns the heads' weighted values, [B, T, H, K]; inside a compact module.

  Args:
    c: geometry.
    hidden_BTD: activations.
    mask_BT: bool, False where a position may not be attended to.
    deterministic: no dropout on the attention weights.
  """
  shape = (c.width, c.num_heads, c.head_size)

  def project(name):
    return Einsum('BTD,DHK->BTHK', shape, ('embed', 'heads', 'head_size'),
                  fan_in=c.width, bias_axes=2, name=name)(hidden_BTD)

  # Queries are scaled before the product, as the release does.
  query_BTHK = project('query') * c.head_size ** -0.5
  key_BTHK, value_BTHK = project('key'), project('value')
  logits_BHTS = jnp.einsum(
      'BTHK,BSHK->BHTS', query_BTHK, key_BTHK,
      preferred_element_type=jnp.float32)
  # Finite, so that a row of padding alone gives numbers, not NaN.
  logits_BHTS = jnp.where(
      mask_BT[:, None, None, :], logits_BHTS, jnp.finfo(jnp.float32).min)
  weights_BHTS = jax.nn.softmax(logits_BHTS).astype(hidden_BTD.dtype)
  weights_BHTS = nn.Dropout(c.attention_dropout)(
      weights_BHTS, deterministic=deterministic)
  return jnp.einsum(
      'BHTS,BSHK->BTHK', weights_BHTS, value_BTHK,
      preferred_element_type=jnp.float32).astype(hidden_BTD.dtype)


class Attention(nn.Module):
  """Multi-head self-attention with an output map."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BTD: jax.Array, mask_BT: jax.Array, *,
               deterministic: bool) -> jax.Array:
    c = self.config
    mixed_BTHK = attend(c, hidden_BTD, mask_BT, deterministic=deterministic)
    return Einsum('BTHK,HKD->BTD', (c.num_heads, c.head_size, c.width),
                  ('heads', 'head_size', 'embed'), fan_in=c.width,
                  name='out')(mixed_BTHK)


class Mlp(nn.Module):
  """The feed-forward part: Linear, erf GELU, Linear."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BTD: jax.Array) -> jax.Array:
    c = self.config
    inner_BTM = Einsum('BTD,DM->BTM', (c.width, c.mlp_width), ('embed', 'mlp'),
                       fan_in=c.width, name='inner')(hidden_BTD)
    inner_BTM = jax.nn.gelu(inner_BTM, approximate=False)
    return Einsum('BTM,MD->BTD', (c.mlp_width, c.width), ('mlp', 'embed'),
                  fan_in=c.mlp_width, name='outer')(inner_BTM)


class EncoderLayer(nn.Module):
  """One post-LayerNorm Transformer layer.

  Source: reference.md, section 3 ("Joint").
  """
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, hidden_BTD: jax.Array, mask_BT: jax.Array,
               deterministic: bool) -> tuple[jax.Array, None]:
    c = self.config
    dropout = nn.Dropout(c.dropout, deterministic=deterministic)
    attended_BTD = Attention(c, name='attention')(
        hidden_BTD, mask_BT, deterministic=deterministic)
    hidden_BTD = LayerNorm(c.layer_norm_epsilon, name='attention_norm')(
        hidden_BTD + dropout(attended_BTD))
    hidden_BTD = LayerNorm(c.layer_norm_epsilon, name='mlp_norm')(
        hidden_BTD + dropout(Mlp(c, name='mlp')(hidden_BTD)))
    return hidden_BTD * mask_BT[..., None].astype(hidden_BTD.dtype), None
