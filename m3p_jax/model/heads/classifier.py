"""Classes of a text about one picture, or two.

Letters: B rows, P states of a row, D width, E their pooled vectors together, M
hidden units, X classes.
Source: VOLTA's classifiers, as IGLUE trains them: a pooler of its own, then
Linear, GELU, LayerNorm, Linear on the pictures' pooled vectors side by side.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax.model import config as model_config
from m3p_jax.model import transformer


class Head(nn.Module):
  """Logits of classes, from the first state of each picture's joint row."""
  config: model_config.ModelConfig
  options: model_config.Options
  outputs: int
  inputs: int

  @nn.compact
  def __call__(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, X]."""
    width = self.config.width
    pooled_BPE = jnp.tanh(transformer.Linear(
        'BPD,DE->BPE', (width, width), ('embed', 'mlp'),
        name='pooler')(hidden_BPD))
    pooled_BE = pooled_BPE.reshape(len(pooled_BPE), -1)
    hidden_BM = transformer.Linear(
        'BE,EM->BM', (self.inputs * width, 2 * width), ('embed', 'mlp'),
        name='inner')(pooled_BE)
    hidden_BM = transformer.layer_norm(
        self.config.layer_norm_epsilon, hidden_BM.dtype, name='norm')(
            jax.nn.gelu(hidden_BM, approximate=False))
    return transformer.Linear(
        'BM,MX->BX', (2 * width, self.outputs), ('mlp_in', 'one'),
        name='outer')(hidden_BM).astype(jnp.float32)
