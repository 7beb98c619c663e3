"""AdamW with a rate factor for every parameter, and its schedules."""

from collections.abc import Mapping, Sequence
import re
from typing import Any, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
import optax

from input_pipeline import errors
from m3p_jax import adapters as adapters_lib

SCHEDULES = ('inverse_sqrt', 'cosine', 'constant')
# What enters the first layer.
_ENTRANCE = ('tokens', 'positions', 'languages', 'embedding_norm',
             'region_embedding', 'refiner')
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
  """Returns (trainable, frozen), those of factor 0: they share no leaf."""
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


def points_schedule(points: Sequence[tuple[float, float]]) -> optax.Schedule:
  """Returns the factor by step, linear between (step, factor) points."""
  steps, factors = (jnp.array(values, jnp.float32)
                    for values in zip(*points, strict=True))
  return lambda count: jnp.interp(
      jnp.asarray(count, jnp.float32), steps, factors)


def make_schedule(*, learning_rate: float, schedule: str, warmup_steps: int,
                  num_train_steps: int) -> optax.Schedule:
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
  first = max(warmup_steps, 1)

  def inverse_sqrt(past):
    step = jnp.maximum(past + warmup_steps, first)
    return learning_rate * jnp.sqrt(first / step)

  after = {
      'inverse_sqrt': inverse_sqrt,
      'cosine': optax.cosine_decay_schedule(
          learning_rate, max(num_train_steps - warmup_steps, 1)),
      'constant': optax.constant_schedule(learning_rate)}[schedule]
  rate = optax.join_schedules(
      [optax.linear_schedule(0.0, learning_rate, first), after],
      [warmup_steps])
  # The n-th update, counted from 1: the first is not wasted on rate 0.
  return lambda count: rate(count + 1)


def make_optimizer(schedule: optax.Schedule, *, b1: float, b2: float,
                   eps: float, weight_decay: float, clip_norm: float,
                   rate_factors: RateFactors = (),
                   first_moment_dtype: str = 'float32',
                   layer_decay: float = 1.0, num_layers: int = 0,
                   average_decay: float = 0.0,
                   adapters: adapters_lib.Ranks = (), seed: int = 0,
                   ) -> optax.GradientTransformation:
  """Returns clipping, AdamW, the rates, adapters, and the weights' average.

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
    layer_decay: see `layer_factor`; 1 = off.
    num_layers: of the encoder.
    average_decay: see `average`; 0 = off.
    adapters: see `adapters.rank`; () = none.
    seed: of their first values.
  """
  parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  parts.append(optax.scale_by_adam(b1, b2, eps, mu_dtype=first_moment_dtype))
  if weight_decay:
    parts.append(optax.add_decayed_weights(
        weight_decay, mask=lambda params: traverse_util.path_aware_map(
            lambda path, _: path[-1] == 'kernel', params)))
  parts.append(optax.scale_by_learning_rate(schedule))
  if rate_factors:
    parts.append(optax.stateless(
        lambda updates, _: traverse_util.path_aware_map(
            lambda path, update: update * rate_factor(
                '/'.join(map(str, path)), rate_factors), updates)))
  if layer_decay != 1:
    parts.append(optax.stateless(
        lambda updates, _: traverse_util.path_aware_map(
            lambda path, update: update * layer_factor(
                path, update.shape, layer_decay, num_layers), updates)))
  if adapters:
    parts = [adapters_lib.adapt(optax.chain(*parts), adapters, seed=seed)]
  if average_decay:
    parts.append(average(average_decay))
  return optax.chain(*parts)


def layer_factor(path: Sequence[Any], shape: Sequence[int], decay: float,
                 num_layers: int) -> Any:
  """Returns the factor of a parameter's rate: lower layers learn more slowly.

  1 for heads, decay for the last layer, decay² for the one before; one more
  for what enters the first. A stack of layers has a factor for each.
  Source: Howard and Ruder 2018, section 3.2; BEiT's exponents.

  Args:
    path: of the parameter.
    shape: of it; of the encoder's, layers first.
    decay: 0 to 1.
    num_layers: of the encoder.
  """
  if path[0] == 'encoder':
    factor_N = decay ** jnp.arange(shape[0], 0, -1, dtype=jnp.float32)
    return factor_N.reshape(-1, *[1] * (len(shape) - 1))
  return decay ** (num_layers + 1) if path[0] in _ENTRANCE else 1.0


class Average(NamedTuple):
  """State of `average`."""
  num_updates: jax.Array
  average: Any


def average(decay: float) -> optax.GradientTransformation:
  """Returns what keeps an exponential moving average of the weights.

  The last of a chain. The decay rises to its value as (1 + n) / (10 + n) of n
  updates, so that the first values do not stay in it.
  """

  def init(params):
    return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

  def update(updates, state, params):
    count = state.num_updates.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + count) / (10 + count))
    return updates, Average(state.num_updates + 1, jax.tree.map(
        lambda old, new, update: old + (1 - kept) * (new + update - old),
        state.average, params, updates))

  return optax.GradientTransformation(init, update)
