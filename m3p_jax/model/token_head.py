"""The masked tokens' head: logits over the word table, and their loss.

Letters: B rows, P predictions a row, D width, V padded vocabulary.
"""

import functools

import jax
import jax.numpy as jnp

from m3p_jax import sharding
from m3p_jax.model import layers


def logits(hidden_BPD: jax.Array, table_VD: jax.Array, bias_V: jax.Array, *,
           vocab_size: int) -> jax.Array:
  """Returns float32 [B, P, V]; rows from `vocab_size` on are -inf."""
  logits_BPV = bias_V + layers.contract(
      'BPD,VD->BPV', hidden_BPD, table_VD, jnp.float32)
  is_padding_V = jnp.arange(logits_BPV.shape[-1]) >= vocab_size
  return sharding.constrain(
      jnp.where(is_padding_V, -jnp.inf, logits_BPV), 'batch', None, 'vocab')


# A batch's logits are the largest array of a step by far: the backward pass
# makes them again rather than have them kept (XLA's CPU compiler keeps them).
@functools.partial(jax.checkpoint, static_argnums=(4,))
def nats(hidden_BPD: jax.Array, table_VD: jax.Array, bias_V: jax.Array,
         target_BP: jax.Array, vocab_size: int) -> tuple[jax.Array, jax.Array]:
  """Returns ([B, P] float32 nats of the targets, [B, P] likeliest token)."""
  logits_BPV = logits(hidden_BPD, table_VD, bias_V, vocab_size=vocab_size)
  target_BP1 = target_BP[..., None]
  right_BP = jnp.take_along_axis(logits_BPV, target_BP1, axis=-1)[..., 0]
  return (jax.nn.logsumexp(logits_BPV, axis=-1) - right_BP,
          logits_BPV.argmax(-1))
