"""Forward passes of a model, bound to their parameters and jitted."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax

from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p

# XLA's CPU compiler would make one routine of products, GELU and LayerNorm of
# a whole layer, which takes 1.25 times as long as each by itself.
_CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type':
                'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns the jitted forward pass."""
  return jax.jit(function, compiler_options=(
      _CPU_OPTIONS if jax.default_backend() == 'cpu' else None))


def bound(config: model_config_lib.ModelConfig,
          function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns (params, …) → function(bound model, …)."""
  module = m3p.M3P(config)
  return lambda params, *args, **kwargs: nn.apply(
      lambda model: function(model, *args, **kwargs), module)(
          {'params': params})
