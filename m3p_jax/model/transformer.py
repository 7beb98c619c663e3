"""The Transformer: post-LayerNorm layers, the last read where asked.

Letters: B rows, T length (regions and text), S length attended to, P positions
read of a row, D width, H heads, K head size, M MLP width.
Source: reference.md, sections 2 and 3.
"""

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from m3p_jax import sharding
from m3p_jax import shares
from m3p_jax.model import config as model_config

# Collection of the attention weights; no parameters, so `init` leaves it out.
ATTENTION = 'intermediates'
# Collection of the keys and values of a text that is written token by token,
# and of what it reads. Its arrays in `layers` have the layers in front.
CACHE = 'cache'
# The axis of a collection's arrays along which layers are stacked.
_STACKED = {'params': 0, shares.SHARES: 1}

# What a layer keeps for its backward pass; what is not named here is computed
# again from it.
_POLICIES = {
    'projections': jax.checkpoint_policies.save_only_these_names('projection'),
    'input': jax.checkpoint_policies.nothing_saveable}


def linear_init(fan_in: int) -> nn.initializers.Initializer:
  """Returns U(±1/√fan_in), the release's initial values of linear layers."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
      key, shape, dtype, -fan_in ** -0.5, fan_in ** -0.5)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(equation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns einsum(equation, x, kernel) in float32.

  Its derivatives are einsum's, from operands in x's format, for the cotangent
  has been rounded to it. A TPU's compiler makes the same program of einsum's
  own (pretrain's plan for v5e:2x4: 18.53 TFLOP, 74.98 GB with both); a CPU's
  multiplies bfloat16 by float32 without its fast instructions, and 12 layers
  of width 384 took 1.25 s forward and backward instead of 0.76.
  """
  return jnp.einsum(equation, x, kernel, preferred_element_type=jnp.float32)


def _product_forward(equation, x, kernel):
  return product(equation, x, kernel), (x, kernel)


def _product_backward(equation, kept, y):
  x, kernel = kept
  (of_x, of_kernel), of_y = _parse(equation)
  y = y.astype(x.dtype)
  return (product(f'{of_y},{of_kernel}->{of_x}', y, kernel).astype(x.dtype),
          product(f'{of_x},{of_y}->{of_kernel}', x, y).astype(kernel.dtype))


def _parse(equation: str) -> tuple[list[str], str]:
  """Returns the axes' letters of what enters, and of what comes out."""
  operands, out = equation.split('->')
  return operands.split(','), out


product.defvjp(_product_forward, _product_backward)


class Linear(nn.Module):
  """einsum(equation, x, kernel) + bias, in x's dtype, summed in float32.

  What comes out is split over devices by its rows, the first axis, and as the
  kernel is, but for `embed`.

  Attributes:
    equation: 'x,kernel->y'; the bias has the kernel's axes that y has.
    shape: of the kernel.
    axes: logical names of the kernel's axes.
    kernel_init: None = `linear_init`, of the bias too, which else is 0.
  """
  equation: str
  shape: tuple[int, ...]
  axes: tuple[str, ...]
  kernel_init: Callable[..., jax.Array] | None = None
  reads_shares = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    (_, letters), out = _parse(self.equation)
    kept = [i for i, letter in enumerate(letters) if letter in out]
    bias_shape = tuple(self.shape[i] for i in kept)
    fresh = linear_init(math.prod(self.shape) // math.prod(bias_shape))
    kernel = self.param('kernel', nn.with_logical_partitioning(
        self.kernel_init or fresh, self.axes), self.shape, jnp.float32)
    bias = self.param('bias', nn.with_logical_partitioning(
        nn.initializers.zeros if self.kernel_init else fresh,
        tuple(self.axes[i] for i in kept)), bias_shape, jnp.float32)
    kernel_N = shares.copies(
        kernel.astype(x.dtype), self.get_variable(shares.SHARES, 'kernel'),
        x.shape[0])
    y = product(
        f'N{self.equation.replace(",", ",N").replace("->", "->N")}',
        x.reshape(len(kernel_N), -1, *x.shape[1:]), kernel_N)
    y = y.reshape(-1, *y.shape[2:])
    names = dict(zip(letters, self.axes, strict=True)) | {out[0]: 'batch'}
    y = sharding.constrain((y + bias).astype(x.dtype), *(
        None if names.get(letter) == 'embed' else names.get(letter)
        for letter in out))
    return checkpoint_name(y, 'projection')


class Table(nn.Module):
  """A table of learned vectors; initial values N(0, width^-0.5)."""
  rows: int
  width: int
  axis: str

  def setup(self):
    self.embedding = self.param(
        'embedding', nn.with_logical_partitioning(
            nn.initializers.normal(self.width ** -0.5),
            (self.axis, 'activation_embed')),
        (self.rows, self.width), jnp.float32)
    self.share = self.get_variable(shares.SHARES, 'embedding')

  def __call__(self, index: jax.Array) -> jax.Array:
    return shares.look_up(self.embedding, self.share, index)

  def copies(self, dtype: Any) -> jax.Array:
    """Returns [N, rows, width], the table for each part of the rows."""
    return shares.copies(self.embedding.astype(dtype), self.share)


def layer_norm(epsilon: float, dtype: Any, **module: Any) -> nn.LayerNorm:
  """Returns LayerNorm over the last axis, computed in float32."""
  split = lambda init: nn.with_logical_partitioning(
      init, ('activation_embed',))
  # E[x²] − E[x]² would be all rounding where epsilon is 1e-12.
  return nn.LayerNorm(
      epsilon, dtype=dtype, use_fast_variance=False,
      scale_init=split(nn.initializers.ones),
      bias_init=split(nn.initializers.zeros), **module)


class Attention(nn.Module):
  """Multi-head attention.

  Its weights, float32 [B, H, P, S], are sown into the collection `ATTENTION`.

  Attributes:
    is_gated: the result is gated by its own query instead of mapped
      ("attention on attention", of the region refiner).
    is_cross: the memory is the same for every token that is written.
  """
  config: model_config.ModelConfig
  options: model_config.Options
  is_gated: bool = False
  is_cross: bool = False

  @nn.compact
  def __call__(self, x_BPD: jax.Array, memory_BSD: jax.Array,
               mask_BPS: jax.Array, *, deterministic: bool,
               position: jax.Array | None = None) -> jax.Array:
    """Returns [B, P, D]; a gate's [B, P, D] as well.

    Args:
      x_BPD: where the queries come from.
      memory_BSD: where keys and values come from.
      mask_BPS: what may be attended to; P may be 1, for all.
      deterministic: no dropout.
      position: of the one token that is written: those before it, up to S, and
        a cross-attention's memory, are in the collection `CACHE`.
    """
    c = self.config

    def project(name, x_BTD):
      return Linear(
          'BTD,DHK->BTHK', (c.width, c.num_heads, c.head_size),
          ('embed', 'heads', 'head_size'), name=name)(x_BTD)

    def project_all(name):
      if position is None:
        return project(name, memory_BSD)
      if self.is_cross:
        return self.variable(
            CACHE, f'{name}s', lambda: project(name, memory_BSD)).value
      new_B1HK = project(name, memory_BSD)
      kept = self.variable(CACHE, f'{name}s', lambda: jnp.zeros(
          (len(x_BPD), mask_BPS.shape[-1], *new_B1HK.shape[2:]), x_BPD.dtype))
      kept.value = jax.lax.dynamic_update_slice_in_dim(
          kept.value, new_B1HK, position, axis=1)
      return kept.value

    # Queries are scaled before the product, as the release does.
    query_BPHK = project('query', x_BPD) * c.head_size ** -0.5
    key_BSHK, value_BSHK = (
        project_all(name) for name in ('key', 'value'))
    logits_BHPS = jnp.einsum('BPHK,BSHK->BHPS', query_BPHK, key_BSHK,
                             preferred_element_type=jnp.float32)
    # Finite, so that a row of padding alone gives numbers, not NaN.
    weights_BHPS = jax.nn.softmax(jnp.where(
        mask_BPS[:, None], logits_BHPS, jnp.finfo(jnp.float32).min))
    self.sow(ATTENTION, 'weights', weights_BHPS)
    weights_BHPS = nn.Dropout(self.options.attention_dropout)(
        weights_BHPS.astype(x_BPD.dtype), deterministic=deterministic)
    mixed_BPHK = checkpoint_name(jnp.einsum(
        'BHPS,BSHK->BPHK', weights_BHPS, value_BSHK,
        preferred_element_type=jnp.float32).astype(x_BPD.dtype), 'projection')
    if not self.is_gated:
      return Linear('BPHK,HKD->BPD', (c.num_heads, c.head_size, c.width),
                    ('heads', 'head_size', 'embed'), name='out')(mixed_BPHK)
    both_BPX = nn.Dropout(self.options.dropout)(
        jnp.concatenate([mixed_BPHK.reshape(x_BPD.shape), x_BPD], axis=-1),
        deterministic=deterministic)
    return jax.nn.glu(Linear(
        'BPX,XY->BPY', (2 * c.width, 2 * c.width), ('embed', 'mlp'),
        name='gate')(both_BPX))


class Mlp(nn.Module):
  """The feed-forward part: Linear, erf GELU, Linear."""
  config: model_config.ModelConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    c = self.config
    inner_BTM = Linear('BTD,DM->BTM', (c.width, c.mlp_width),
                       ('embed', 'mlp'), name='inner')(x_BTD)
    return Linear(
        'BTM,MD->BTD', (c.mlp_width, c.width),
        ('mlp_in', 'activation_embed'), name='outer')(
            jax.nn.gelu(inner_BTM, approximate=False))


class Layer(nn.Module):
  """One post-LayerNorm layer, of all positions or of those that are read.

  With a memory it is a decoder's layer: causal, and attending to the memory
  before its feed-forward part.
  """
  config: model_config.ModelConfig
  options: model_config.Options
  deterministic: bool

  @nn.compact
  def __call__(self, x_BTD: jax.Array, mask_BT: jax.Array,
               memory: tuple[jax.Array, jax.Array] | None = None,
               read_BP: jax.Array | None = None,
               position: jax.Array | None = None) -> tuple[jax.Array, None]:
    """Returns (states, None), as `nn.scan` wants them; args as `Encoder`'s."""
    c = self.config
    norm = lambda name: layer_norm(
        c.layer_norm_epsilon, x_BTD.dtype, name=name)
    drop = nn.Dropout(self.options.dropout, deterministic=self.deterministic)

    def attend(name, x_BPD, memory_BSD, mask_BPS, *, is_cross=False):
      return norm(f'{name}_norm')(x_BPD + drop(
          Attention(c, self.options, is_cross=is_cross, name=name)(
              x_BPD, memory_BSD, mask_BPS, deterministic=self.deterministic,
              position=position)))

    own_BTD, own_BPS = x_BTD, mask_BT[:, None]
    if position is not None:
      mask_BT = mask_BT[:, :1]  # What is written is no padding.
    elif memory is not None:
      own_BPS = own_BPS & jnp.tril(jnp.ones(2 * x_BTD.shape[1:2], bool))[None]
    if read_BP is not None:
      x_BTD = jnp.take_along_axis(x_BTD, read_BP[..., None], axis=1)
      mask_BT = jnp.take_along_axis(mask_BT, read_BP, axis=1)
    x_BTD = attend('attention', x_BTD, own_BTD, own_BPS)
    if memory is not None:
      memory_BSD, memory_mask_BS = memory
      x_BTD = attend('cross_attention', x_BTD, memory_BSD,
                     memory_mask_BS[:, None], is_cross=True)
    x_BTD = norm('mlp_norm')(x_BTD + drop(Mlp(c, name='mlp')(x_BTD)))
    x_BTD = x_BTD * mask_BT[..., None].astype(x_BTD.dtype)
    return sharding.constrain(
        x_BTD, 'batch', 'length', 'activation_embed'), None


class Encoder(nn.Module):
  """All layers: a scan over all but the last, and the last."""
  config: model_config.ModelConfig
  options: model_config.Options

  @nn.compact
  def __call__(self, x_BTD: jax.Array, mask_BT: jax.Array,
               memory: tuple[jax.Array, jax.Array] | None = None,
               read_BP: jax.Array | None = None,
               position: jax.Array | None = None, *,
               deterministic: bool) -> jax.Array:
    """Returns the last states [B, T, D], or [B, P, D] of those read.

    Args:
      x_BTD: what enters the first layer.
      mask_BT: False at padding; such states are 0.
      memory: (states [B, S, D], mask [B, S]) of what a decoder reads.
      read_BP: int, the positions that the last layer computes; None = all.
      position: of the one token [B, 1, D] that is written; `mask_BT` then says
        what it may read of the text. None = the text is whole.
      deterministic: no dropout.
    """
    c, layer = self.config, Layer
    if self.options.remat != 'none':
      layer = nn.remat(Layer, prevent_cse=False,
                       policy=_POLICIES[self.options.remat])
    x_BTD, _ = nn.scan(
        layer, variable_axes={**_STACKED, ATTENTION: 0, CACHE: 0},
        split_rngs={'params': True, 'dropout': True}, in_axes=nn.broadcast,
        length=c.num_layers - 1, metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c, self.options, deterministic, name='layers')(
        x_BTD, mask_BT, memory, None, position)
    return layer(c, self.options, deterministic, name='last')(
        x_BTD, mask_BT, memory, read_BP, position)[0]


def _split_last(variables: Any) -> Any:
  """Returns what `Encoder` reads: the last layer apart from the others."""
  stack = variables.get('params')
  if not stack:
    return variables

  return {name: {
      'layers': jax.tree.map(lambda x, axis=axis: jax.lax.slice_in_dim(
          x, 0, -1, axis=axis), variables[name]),
      'last': jax.tree.map(lambda x, axis=axis: jax.lax.index_in_dim(
          x, -1, axis, keepdims=False), nn.unbox(variables[name]))}
          for name, axis in _STACKED.items() if name in variables}


def _join_last(variables: Any) -> Any:
  """Returns the parameters of all layers as one stack."""

  def join(stack, last):
    joined = jnp.concatenate([nn.unbox(stack), nn.unbox(last)[None]])
    # Fresh parameters are in boxes with the names of their axes.
    return (stack.replace_boxed(joined) if isinstance(stack, nn.Partitioned)
            else joined)

  params = variables.get('params')
  return variables if not params else {**variables, 'params': jax.tree.map(
      join, params['layers'], params['last'],
      is_leaf=lambda x: isinstance(x, nn.Partitioned))}


def stacked_encoder(config: model_config.ModelConfig,
                    options: model_config.Options, *,
                    is_initializing: bool) -> nn.Module:
  """Returns an `Encoder` whose parameters are one stack of all layers.

  Checkpoints hold them so, as they have since version 1.
  """
  return nn.map_variables(
      Encoder, tuple(_STACKED), _split_last, _join_last, init=is_initializing)(
          config, options)
