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
  logits_BPV = bias_V + _products(hidden_BPD, table_VD)
  is_padding_V = _tokens(table_VD) >= vocab_size
  return _constrained(jnp.where(is_padding_V, -jnp.inf, logits_BPV))


def nats(hidden_BPD: jax.Array, table_VD: jax.Array, bias_V: jax.Array,
         target_BP: jax.Array, vocab_size: int) -> tuple[jax.Array, jax.Array]:
  """Returns ([B, P] float32 nats of the targets, [B, P] likeliest token).

  Args:
    hidden_BPD: activations.
    table_VD: float32 word table.
    bias_V: float32.
    target_BP: int32 tokens.
    vocab_size: rows of the table from here on are padding.
  """
  # The backward pass makes the logits again rather than have them kept (XLA's
  # CPU compiler keeps them).
  return jax.checkpoint(_nats, static_argnums=(4,))(
      hidden_BPD, table_VD, bias_V, target_BP, vocab_size)


# A batch's logits are the largest array of a step by far: every pass over them
# counts, so the backward pass is written out.
@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _nats(hidden_BPD, table_VD, bias_V, target_BP, vocab_size):
  return _forward(hidden_BPD, table_VD, bias_V, target_BP, vocab_size)[0]


def _forward(hidden_BPD, table_VD, bias_V, target_BP, vocab_size):
  logits_BPV = logits(hidden_BPD, table_VD, bias_V, vocab_size=vocab_size)
  highest_BP = logits_BPV.max(-1)
  log_sum_BP = highest_BP + jnp.log(_sum(
      'BPV->BP', jnp.exp(logits_BPV - highest_BP[..., None])))
  right_BP = jnp.take_along_axis(
      logits_BPV, target_BP[..., None], axis=-1)[..., 0]
  # An argmax by a plain minimum, which takes a fifth of the time on a CPU.
  likeliest_BP = jnp.where(
      logits_BPV == highest_BP[..., None], _tokens(table_VD),
      vocab_size).min(-1)
  return ((log_sum_BP - right_BP, likeliest_BP),
          (hidden_BPD, table_VD, target_BP, logits_BPV, log_sum_BP))


def _backward(vocab_size, saved, gradients):
  del vocab_size
  hidden_BPD, table_VD, target_BP, logits_BPV, log_sum_BP = saved
  nats_gradient_BP, _ = gradients
  is_right_BPV = _tokens(table_VD) == target_BP[..., None]
  gradient_BPV = _constrained(nats_gradient_BP[..., None] * (
      jnp.exp(logits_BPV - log_sum_BP[..., None]) - is_right_BPV))
  _, products_backward = jax.vjp(_products, hidden_BPD, table_VD)
  return *products_backward(gradient_BPV), _sum('BPV->V', gradient_BPV), None


_nats.defvjp(_forward, _backward)


def _products(hidden_BPD, table_VD):
  return layers.contract('BPD,VD->BPV', hidden_BPD, table_VD, jnp.float32)


def _tokens(table_VD):
  return jnp.arange(table_VD.shape[0], dtype=jnp.int32)


def _constrained(scores_BPV):
  return sharding.constrain(scores_BPV, 'batch', None, 'vocab')


def _sum(equation: str, x: jax.Array) -> jax.Array:
  """Returns einsum(equation, x), float32.

  XLA's CPU compiler takes up to seven times as long for a sum over so large
  an array as for its product with ones.
  """
  letters, out = equation.split('->')
  summed = ''.join(letter for letter in letters if letter not in out)

  def product(x):
    ones = jnp.ones([x.shape[letters.index(letter)] for letter in summed])
    return jnp.einsum(f'{letters},{summed}->{out}', x, ones)

  return jax.lax.platform_dependent(
      x, cpu=product, default=functools.partial(jnp.einsum, equation))
