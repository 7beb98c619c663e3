"""Adapters: a kernel learns by the product of two thin matrices.

A kernel is what it was plus down · up, and only these two have moments. They
live in the optimizer's state: parameters, checkpoints and exports have the
same kernels as ever, their adapters already added.

Letters: N layers, I inputs, O outputs, R rank.
Source: Hu et al. 2022 (LoRA), with alpha equal to the rank; `rate_factors`
scale what they learn.
"""

from collections.abc import Mapping, Sequence
import math
import re
from typing import Any, NamedTuple
import zlib

from flax import traverse_util
import jax
import jax.numpy as jnp
import optax

from input_pipeline import errors

# (regular expression on 'a/b/c', rank) pairs.
Ranks = Sequence[tuple[str, int]]
_DOWN, _UP = 'down', 'up'


class State(NamedTuple):
  """Of `adapt`.

  Attributes:
    factors: 'a/b/kernel' -> {'down': [..., I, R], 'up': [..., R, O]}.
    inner: of the optimizer of all that is trained, these among it.
  """
  factors: Any
  inner: Any


def rank(path: str, ranks: Ranks) -> int:
  """Returns the rank of a kernel's adapter, 0 = it has none."""
  if path.endswith('/kernel'):
    for pattern, number in ranks:
      if re.search(pattern, path):
        return number
  return 0


def check_ranks(ranks: Any) -> None:
  """Raises UserError for what is no list of (regular expression, rank)."""
  for one in ranks:
    try:
      pattern, number = one
      re.compile(pattern)
      is_right = type(number) is int and number > 0
    except (TypeError, ValueError, re.error):
      is_right = False
    if not is_right:
      raise errors.UserError(
          f'optimizer.adapters has {one!r}; allowed: pairs of a regular '
          "expression and a rank of 1 or more, as ('^encoder/mlp/', 8)")


def check(params: Mapping[str, Any], ranks: Ranks) -> None:
  """Raises UserError for an expression that no trained kernel's path contains.

  Args:
    params: that are trained.
    ranks: of the config.
  """
  paths = [path for path in traverse_util.flatten_dict(params, sep='/')
           if path.endswith('/kernel')]
  for pattern, _ in ranks:
    if not any(re.search(pattern, path) for path in paths):
      raise errors.UserError(
          f'optimizer.adapters: {pattern!r} matches no kernel that is trained '
          '(optimizer.rate_factors of 0 freeze the others); there are: '
          f'{", ".join(sorted(paths)) or "none"}')


def adapt(tx: optax.GradientTransformation, ranks: Ranks, *,
          seed: int) -> optax.GradientTransformation:
  """Returns an optimizer in whose updates some kernels change by adapters.

  Args:
    tx: that updates the adapters, and all that has none.
    ranks: see `rank`.
    seed: of the first values.
  """

  def init(params):
    factors = {
        path: _first(path, leaf, rank(path, ranks), seed)
        for path, leaf in traverse_util.flatten_dict(params, sep='/').items()
        if rank(path, ranks)}
    return State(factors, tx.init(_replace(params, factors)))

  def update(updates, state, params):
    flat = traverse_util.flatten_dict(updates, sep='/')
    learned, inner = tx.update(
        _replace(updates, {path: _gradient(path, flat[path], pair)
                           for path, pair in state.factors.items()}),
        state.inner, _replace(params, state.factors))
    learned = traverse_util.flatten_dict(learned, sep='/')
    factors = {
        path: {name: value + learned.pop(f'{path}/{name}')
               for name, value in pair.items()}
        for path, pair in state.factors.items()}
    changes = {
        path: (_product(pair) - _product(state.factors[path])).reshape(
            flat[path].shape) for path, pair in factors.items()}
    return traverse_util.unflatten_dict(
        learned | changes, sep='/'), State(factors, inner)

  return optax.GradientTransformation(init, update)


def _replace(tree: Mapping[str, Any],
             pairs: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a tree with pairs where kernels were."""
  return traverse_util.unflatten_dict(
      traverse_util.flatten_dict(tree, sep='/') | dict(pairs), sep='/')


def _first(path: str, kernel: Any, size: int, seed: int) -> dict[str, Any]:
  """Returns factors whose product is 0, and that learn."""
  *layers, inputs, outputs = _matrix(path, kernel).shape
  key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
  return {_DOWN: jax.random.normal(
      key, (*layers, inputs, size)) * inputs ** -0.5,
          _UP: jnp.zeros((*layers, size, outputs))}


def _matrix(path: str, kernel: Any) -> Any:
  """Returns a kernel as [I, O], [N, I, O] in the stack of layers."""
  first = int(path.startswith('encoder/'))
  # Of attention's kernels two axes are heads: the last of what enters 'out',
  # and of what comes from the others.
  last = kernel.ndim - 1
  middle = last if path.endswith('/out/kernel') else first + 1
  return kernel.reshape(
      *kernel.shape[:first], math.prod(kernel.shape[first:middle]),
      math.prod(kernel.shape[middle:]))


def _gradient(path: str, kernel: Any, pair: Mapping[str, Any]) -> Any:
  """Returns the factors' gradients, from their product's."""
  matrix = _matrix(path, kernel)
  return {_DOWN: jnp.einsum('...IO,...RO->...IR', matrix, pair[_UP]),
          _UP: jnp.einsum('...IR,...IO->...RO', pair[_DOWN], matrix)}


def _product(pair: Mapping[str, Any]) -> Any:
  return jnp.einsum('...IR,...RO->...IO', pair[_DOWN], pair[_UP])
