"""Gradients that stay on their chip until the end of a step.

A weight's gradient is a sum over all rows, and so over chips. Left to the
compiler, it is sent in every layer, of every task, of every part of the rows.
Here a product reads a copy of its weights for each part of the rows, and a
copy's gradient is added to that part's share: an argument that is split like
the rows, holds zeros, and that nothing reads. Shares are summed over chips once
a step, and the weights gathered once.

Letters: N parts of the rows (devices of `data` x `fsdp`), V rows of a table, D
their width.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from m3p_jax import sharding

# Collection of the shares: an N before each parameter's axes.
SHARES = 'shares'
_MESH_AXES = sharding.MESH_AXES
_ROWS, _GROUP = sharding.RULES['batch'], sharding.RULES['embed'][0]


def num_parts() -> int:
  """Returns the parts that rows are split into under the current mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else sharding.num_parts(mesh, 'batch')


def split(params: Mapping[str, Any]) -> tuple[dict, dict]:
  """Returns (those with shares, the others): what products and words read."""
  flat = traverse_util.flatten_dict(params)
  big = {path: leaf for path, leaf in flat.items()
         if path[-1] == 'kernel' or path[0] == 'tokens'}
  small = {path: leaf for path, leaf in flat.items() if path not in big}
  return traverse_util.unflatten_dict(big), traverse_util.unflatten_dict(small)


def check_reader(method, args, kwargs, context):
  """Calls a module's method, for `nn.intercept_methods`.

  Raises:
    TypeError: the module has a kernel with a share, and gives it no gradient:
      training would leave it as it is.
  """
  module = context.module
  if module.has_variable(SHARES, 'kernel') and not getattr(
      module, 'reads_shares', False):
    raise TypeError(
        f'{"/".join(module.path)} is a {type(module).__name__}, which would '
        'not be trained: kernels are read by transformer.Linear')
  return method(*args, **kwargs)


def gather(params: Any, specs: Any, dtype: Any) -> Any:
  """Returns parameters in a dtype, whole on each device of a group."""
  return jax.tree.map(
      lambda x, spec: _place(x.astype(dtype), *_whole(spec)), params, specs)


def zeros(params: Any, specs: Any) -> Any:
  """Returns the shares of parameters: float32, with an N in front."""
  return jax.tree.map(
      lambda x, spec: _place(
          jnp.zeros((num_parts(), *x.shape)), _ROWS, *_whole(spec)),
      params, specs)


def total(shares: Any, specs: Any, dtype: Any) -> Any:
  """Returns the gradients, split as the parameters are, in float32.

  Args:
    shares: of all tasks and parts.
    specs: how each parameter is split.
    dtype: in which chips add them up: that of the products they come from.
  """

  def add(x, spec):
    if len(x) == 1:
      return x[0]
    return _place(jax.lax.reduce(
        x.astype(dtype), jnp.zeros((), dtype), jax.lax.add, (0,)),
                  *spec).astype(x.dtype)

  return jax.tree.map(add, shares, specs)


def copies(value: jax.Array, share: jax.Array | None,
           rows: int | None = None) -> jax.Array:
  """Returns [N, ...]: the value for each part, whose gradient goes to `share`.

  Args:
    value: a parameter, in the dtype of the products.
    share: of zeros; None = the gradient goes to the value.
    rows: that are to be split; N is 1 where they do not divide.
  """
  if share is not None:
    return _copies(value, share)
  parts = num_parts()
  # An exported function's rows have no number: it is one part.
  return _spread(
      value, 1 if parts > 1 and rows and rows % parts else parts)


def _spread(value, parts):
  return _split_rows(jnp.broadcast_to(value, (parts, *value.shape)))


@jax.custom_vjp
def _copies(value, share):
  return _spread(value, len(share))


_copies.defvjp(lambda value, share: (_copies(value, share), share),
               lambda share, gradient: (
                   None, _split_rows(gradient.astype(share.dtype))))


def look_up(table_VD: jax.Array, share_NVD: jax.Array | None,
            index: jax.Array) -> jax.Array:
  """Returns the table's rows at an index, as `copies`."""
  if share_NVD is None:
    return jnp.take(table_VD, index, axis=0, mode='clip')
  return _look_up(table_VD, share_NVD, index)


@jax.custom_vjp
def _look_up(table_VD, share_NVD, index):
  return look_up(table_VD, None, index)


def _add_rows(kept, gradient):
  share_NVD, index = kept
  parts, _, width = share_NVD.shape
  each = jax.vmap(lambda share_VD, index, rows: share_VD.at[index].add(
      rows, mode='clip'))
  return None, _split_rows(each(
      share_NVD, _split_rows(index.reshape(parts, -1)),
      _split_rows(gradient.reshape(parts, -1, width).astype(
          share_NVD.dtype)))), None


_look_up.defvjp(
    lambda table_VD, share_NVD, index: (
        _look_up(table_VD, share_NVD, index), (share_NVD, index)), _add_rows)


def _split_rows(x):
  return _place(x, _ROWS, *[P.UNCONSTRAINED] * (x.ndim - 1))


def _place(x, *axes):
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1 or (
      axes[:1] == (_ROWS,) and len(x) % num_parts()):
    return x
  return jax.lax.with_sharding_constraint(x, P(*axes))


def _whole(spec) -> list[Any]:
  """Returns how an array is split that a group does not share."""
  return [tuple(axis for axis in _MESH_AXES if axis != _GROUP and axis in (
      (axes,) if isinstance(axes, str) else axes or ())) for axes in spec]
