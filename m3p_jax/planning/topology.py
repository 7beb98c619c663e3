"""Devices to compile for: this machine's, or those of a TPU topology."""

import importlib.util
import math
import os

import jax
from jax.experimental import topologies

from input_pipeline import errors
from m3p_jax.planning import chips

_CHIPS_PER_HOST = 4


def devices(name: str) -> tuple[list[jax.Device], chips.Chip | None]:
  """Returns (devices, what one of them can do).

  Args:
    name: 'v5e:2x4', 'v5p:4x4x4', …; '' = this machine's devices.

  Raises:
    UserError: no libtpu, or no such topology.
  """
  if not name:
    found = jax.devices()
    return found, chips.of_device(found[0].device_kind)
  chip = chips.of_topology(name)
  if not importlib.util.find_spec('libtpu'):
    raise errors.UserError(
        f'plan.topology={name} needs the compiler for TPUs: pip install '
        '--constraint=constraints.txt --requirement=requirements-plan.txt')
  # Nothing is run: no TPU is looked for, and others may compile beside us.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  try:
    found = topologies.get_topology_desc(
        platform='tpu', topology_name=name, **_part_of_a_host(name)).devices
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    told = str(error).split('\n')[0]
    raise errors.UserError(
        f'plan.topology={name} is no topology that libtpu knows ({told}); '
        "such are 'v5e:2x4', 'v5p:4x4x4', 'v6e:4x4'") from error
  return list(found), chip


def _part_of_a_host(name: str) -> dict[str, tuple[int, ...]]:
  """Returns what libtpu wants told of less than a host's four chips."""
  sizes = [int(size) for size in name.partition(':')[2].split('x')
           if size.isdecimal()]
  if not sizes or math.prod(sizes) >= _CHIPS_PER_HOST:
    return {}
  return {'chips_per_host_bounds': (*sizes, 1, 1)[:3]}
