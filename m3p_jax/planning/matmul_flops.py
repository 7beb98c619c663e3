"""Operations of the matrix products in a traced function.

Counted in the program that JAX traced, not in what the compiler made of it:
a compiler's analysis counts a loop once, whether the loop is a scan over
layers or one that it made itself to overlap a product with communication.
"""

import math
from typing import Any

from jax.extend import core


def count(jaxpr: Any, *, devices: int = 1) -> float:
  """Returns 2 · multiplications of all matrix products, loops multiplied out.

  Args:
    jaxpr: of `jax.make_jaxpr` or of a trace.
    devices: of the mesh; a `shard_map` runs on each.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  total = 0.0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == 'dot_general':
      total += _dot(equation)
      continue
    inner = 0.0
    if name == 'cond':
      inner = max(count(branch, devices=devices)
                  for branch in params['branches'])
    elif name == 'while':
      raise NotImplementedError(
          'a loop without a fixed number of turns has no fixed cost')
    else:
      for value in params.values():
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
          inner += count(value, devices=devices)
    if name == 'scan':
      inner *= params['length']
    elif name == 'shard_map':
      inner *= devices
    total += inner
  return total


def _dot(equation) -> float:
  (contracted, _), _ = equation.params['dimension_numbers']
  left = equation.invars[0].aval.shape
  out = equation.outvars[0].aval.shape
  return 2.0 * math.prod([*out, *(left[axis] for axis in contracted)])
