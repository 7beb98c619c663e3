"""The encoder's layers as a CPU reads them fastest, for many forward passes.

Of the parameters as training keeps them (float32, layers stacked), a CPU would
slice and round every layer again in each pass. Prepared, each layer lies by
itself, its kernels are rounded once to the activations' dtype, and those of the
feed-forward part are turned: its library multiplies faster where both factors
are contracted over their last axis. That costs as much memory again as the
layers take, in the activations' dtype.

Letters: B rows, T length, D width, M MLP width.
"""

from typing import Any

import jax

from m3p_jax.model import config as model_config
from m3p_jax.model import layers
from m3p_jax.model import lean
from m3p_jax.model import transformer


def prepare(c: model_config.ModelConfig, params: Any) -> Any:
  """Returns M3P's parameters with prepared layers; on accelerators, as given.

  Args:
    c: the model's geometry.
    params: of `M3P`, unboxed.
  """
  if c.resolved_platform != 'cpu':
    return params
  # The rest is not passed through a compiled function, which would copy it.
  encoder = jax.jit(lambda encoder: {
      f'{index}': _prepare(c, layer(encoder, index))
      for index in range(c.num_layers)})(params['encoder'])
  return {**params, 'encoder': encoder}


def _prepare(c: model_config.ModelConfig, params: Any) -> Any:
  params = jax.tree_util.tree_map_with_path(
      lambda path, x: (x.astype(c.activation_dtype)
                       if path[-1].key == 'kernel' else x), params)
  # Under another name: of a square kernel the shape would not tell.
  mlp_params = {name: {'turned_kernel': part['kernel'].T, 'bias': part['bias']}
                for name, part in params['mlp'].items()}
  return {**params, 'mlp': mlp_params}


def are_prepared(encoder: Any) -> bool:
  """Returns whether an encoder's parameters come from `prepare`."""
  return '0' in encoder


def layer(encoder: Any, index: int) -> Any:
  """Returns the parameters of one layer, prepared or not."""
  if are_prepared(encoder):
    return encoder[str(index)]
  return jax.tree.map(lambda x: x[index], encoder)


def mlp(c: model_config.ModelConfig, params: Any,
        hidden_BTD: jax.Array) -> jax.Array:
  """Returns what `transformer.Mlp` makes of hidden states.

  Args:
    c: the model's geometry.
    params: of the feed-forward part, prepared or not.
    hidden_BTD: hidden states.
  """
  inner, outer = params['inner'], params['outer']
  if 'turned_kernel' not in inner:
    return transformer.Mlp(c, parent=None).apply(
        {'params': params}, hidden_BTD)
  inner_BTM = layers.add_bias(layers.contract(
      'BTD,MD->BTM', hidden_BTD, inner['turned_kernel']), inner['bias'])
  return layers.add_bias(layers.contract(
      'BTM,DM->BTD', lean.gelu(inner_BTM), outer['turned_kernel']),
      outer['bias'])
