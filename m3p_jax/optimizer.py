"""AdamW with a rate factor for every parameter, and its schedules."""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import optax

from input_pipeline import errors

SCHEDULES = ('inverse_sqrt', 'cosine', 'constant')
# (regular expression on 'a/b/c', factor) pairs.
RateFactors = Sequence[tuple[str, float]]


def rate_factor(path: str, rate_factors: RateFactors) -> float:
  """Returns the factor of the first expression found in the path, else 1."""
  for pattern, factor in rate_factors:
    if re.search(pattern, path):
      return factor
  return 1.0


def split(params: Mapping[str, Any],
          rate_factors: RateFactors) -> tuple[dict, dict]:
  """Returns (trainable, frozen): two trees that share no leaf.

  Args:
    params: nested dict.
    rate_factors: a parameter with the factor 0 is frozen.
  """
  flat = traverse_util.flatten_dict(params, sep='/')
  parts = ({}, {})
  for path, leaf in flat.items():
    parts[rate_factor(path, rate_factors) == 0][path] = leaf
  return tuple(traverse_util.unflatten_dict(part, sep='/') for part in parts)


def merge(trainable: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict:
  """Returns the whole tree of which `split` made two."""
  flat = (traverse_util.flatten_dict(trainable, sep='/')
          | traverse_util.flatten_dict(frozen, sep='/'))
  return traverse_util.unflatten_dict(flat, sep='/')


def check_rate_factors(params: Mapping[str, Any],
                       rate_factors: RateFactors) -> None:
  """Raises UserError for an expression that no parameter's path contains."""
  paths = list(traverse_util.flatten_dict(params, sep='/'))
  for pattern, factor in rate_factors:
    if factor < 0:
      raise errors.UserError(
          f'optimizer.rate_factors: factor {factor} of {pattern!r} is negative')
    if not any(re.search(pattern, path) for path in paths):
      raise errors.UserError(
          f'optimizer.rate_factors: {pattern!r} matches no parameter; there '
          f'are: {", ".join(sorted(paths))}')


def make_schedule(*, learning_rate: float, schedule: str, warmup_steps: int,
                  num_train_steps: int) -> Callable[[Any], jax.Array]:
  """Returns the learning rate as a function of the number of past updates.

  Args:
    learning_rate: at its peak, reached after the warm-up.
    schedule: 'inverse_sqrt' (peak·√(warm-up / n)), 'cosine' (to 0 at the
      end), or 'constant'. Source: reference.md, 5.
    warmup_steps: updates of the linear rise from 0.
    num_train_steps: updates in the whole run.

  Raises:
    UserError: no such schedule.
  """
  if schedule not in SCHEDULES:
    raise errors.UserError(
        f'optimizer.schedule is {schedule!r}; allowed: {", ".join(SCHEDULES)}')

  def rate(count):
    # The n-th update, counted from 1: the first is not wasted on rate 0.
    step = jnp.asarray(count, jnp.float32) + 1
    rise = jnp.minimum(step / max(warmup_steps, 1), 1.0)
    if schedule == 'inverse_sqrt':
      fall = jnp.sqrt(max(warmup_steps, 1) / jnp.maximum(step, warmup_steps))
    elif schedule == 'cosine':
      span = max(num_train_steps - warmup_steps, 1)
      share = jnp.clip((step - warmup_steps) / span, 0.0, 1.0)
      fall = 0.5 * (1 + jnp.cos(jnp.pi * share))
    else:
      fall = jnp.ones(())
    return learning_rate * rise * fall

  return rate


def make_optimizer(schedule: Callable[[Any], jax.Array], *, b1: float,
                   b2: float, eps: float, weight_decay: float,
                   clip_norm: float, rate_factors: RateFactors = (),
                   first_moment_dtype: str = 'float32',
                   ) -> optax.GradientTransformation:
  """Returns clipping, AdamW, and the rates.

  Args:
    schedule: learning rate by the number of past updates.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: decoupled, on kernels alone: not on biases, LayerNorm,
      embeddings or scalars.
    clip_norm: gradients of larger global norm are scaled down; 0 = off.
    rate_factors: see `rate_factor`.
    first_moment_dtype: 'float32' or 'bfloat16'; the second is float32.
  """
  parts = []
  if clip_norm:
    parts.append(optax.stateless(
        lambda updates, _: _clip(updates, clip_norm)))
  parts.append(optax.scale_by_adam(b1, b2, eps, mu_dtype=first_moment_dtype))
  if weight_decay:
    parts.append(optax.add_decayed_weights(weight_decay, mask=_is_kernel))
  parts.append(optax.scale_by_learning_rate(schedule))
  if rate_factors:
    parts.append(optax.stateless(
        lambda updates, _: _scale(updates, rate_factors)))
  return optax.chain(*parts)


def _clip(updates, limit: float):
  """Returns updates scaled down to a global norm of at most `limit`.

  By one factor that is computed first: optax divides and selects each entry,
  which XLA's CPU compiler writes out as a further copy of the gradient.
  """
  norm = optax.tree.norm(updates)
  factor = jnp.where(norm < limit, 1.0, limit / norm)
  return jax.tree.map(lambda update: update * factor, updates)


def _is_kernel(params):
  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict(
      {path: path[-1] == 'kernel' for path in flat})


def _scale(updates, rate_factors):
  flat = traverse_util.flatten_dict(updates, sep='/')
  return traverse_util.unflatten_dict(
      {path: update * rate_factor(path, rate_factors)
       for path, update in flat.items()}, sep='/')
