"""What chips can do, and the devices of a topology that need not be there."""

import importlib.util
import math
import os
from typing import NamedTuple

import jax
from jax.experimental import topologies

from input_pipeline import errors

_CHIPS_PER_HOST = 4


class Chip(NamedTuple):
  """One chip, as its maker describes it.

  Attributes:
    kind: JAX's `device_kind`.
    peak_flops: bfloat16 operations a second.
    bandwidth: bytes a second between its memory and its cores.
    memory_bytes: its memory.
    link_bandwidth: bytes a second that one link to a neighbour brings.
    torus_length: an axis of a slice is closed where this divides its length.
    dcn_bandwidth: bytes a second from other slices, a chip's share of its
      host's network.
  """
  kind: str
  peak_flops: float
  bandwidth: float
  memory_bytes: float
  link_bandwidth: float = math.inf
  torus_length: int = 1
  dcn_bandwidth: float = math.inf


# Source: cloud.google.com/tpu/docs, pages "TPU v4", "TPU v5e", "TPU v5p" and
# "TPU v6e": peak compute per chip (bf16), HBM bandwidth and capacity. Links:
# "bidirectional ICI bandwidth per chip" (400, 1,200 and 800 GB/s) over 2 ways
# and 4, 6 and 4 ports; v4's 50 GB/s from its paper (Jouppi et al., 2023), as
# its bisection of 24 TB/s says too. Network: 6.4 and 25.6 Tb/s per pod of 256
# chips, 50 Gb/s per chip of v5p; v4's pages tell none, v5p's is taken.
CHIPS = {
    'v4': Chip('TPU v4', 275e12, 1_228e9, 32 * 2**30, 50e9, 4, 6.25e9),
    'v5e': Chip('TPU v5 lite', 197e12, 819e9, 16 * 2**30, 50e9, 16, 3.125e9),
    'v5p': Chip('TPU v5', 459e12, 2_765e9, 95 * 2**30, 100e9, 4, 6.25e9),
    'v6e': Chip('TPU v6 lite', 918e12, 1_640e9, 32 * 2**30, 100e9, 16, 12.5e9),
}
# Source: NVIDIA's data sheets, bfloat16 without sparsity. By the beginning of
# `device_kind`.
_GPUS = (Chip('NVIDIA A100', 312e12, 1_555e9, 40 * 2**30),
         Chip('NVIDIA H100', 989e12, 3_350e9, 80 * 2**30),
         Chip('NVIDIA H200', 989e12, 4_800e9, 141 * 10**9),
         Chip('NVIDIA L4', 121e12, 300e9, 24 * 2**30),
         Chip('Tesla T4', 65e12, 320e9, 16 * 2**30))


def of_topology(topology: str) -> Chip:
  """Returns the chip of a topology like 'v5e:2x4'.

  Raises:
    UserError: a generation that is not in `CHIPS`.
  """
  name = topology.partition(':')[0]
  errors.check_choice(f'generation of plan.topology={topology}', name, CHIPS)
  return CHIPS[name]


def of_device(device_kind: str) -> Chip | None:
  """Returns the chip of JAX's device kind, None where it is not known."""
  return next(
      (chip for chip in CHIPS.values() if chip.kind == device_kind), next(
          (chip for chip in _GPUS if device_kind.startswith(chip.kind)), None))


def devices(topology: str,
            slices: int = 1) -> tuple[list[jax.Device], Chip | None]:
  """Returns the devices to compile for, and what one of them can do.

  Args:
    topology: 'v5e:2x4', 'v5p:4x4x4', …; '' = this machine's devices.
    slices: so many of it, on one network.

  Raises:
    UserError: no libtpu, or no such topology.
  """
  if not topology:
    found = jax.devices()
    return found, of_device(found[0].device_kind)
  chip = of_topology(topology)
  if not importlib.util.find_spec('libtpu'):
    raise errors.UserError(
        f'plan.topology={topology} needs the compiler for TPUs: pip install '
        '--constraint=constraints.txt --requirement=requirements-plan.txt')
  # Nothing is run: no TPU is looked for, and others may compile beside us.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  try:
    found = topologies.get_topology_desc(
        platform='tpu', topology_name=topology,
        **({'num_slices': slices} if slices > 1 else {}),
        # Both cores of a chip work as one, as they do where JAX runs.
        **({'chip_config_name': 'megacore'} if topology[:3] == 'v4:' else {}),
        **_part_of_a_host(topology)).devices
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    reason = str(error).split('\n')[0]
    raise errors.UserError(
        f'plan.topology={topology} is no topology that libtpu knows ({reason})'
        "; such are 'v5e:2x4', 'v5p:4x4x4', 'v6e:4x4'") from error
  return list(found), chip


def _part_of_a_host(topology: str) -> dict[str, tuple[int, ...]]:
  """Returns what libtpu wants to know of less than a host's four chips."""
  sizes = [int(size) for size in topology.partition(':')[2].split('x')
           if size.isdecimal()]
  if not sizes or math.prod(sizes) >= _CHIPS_PER_HOST:
    return {}
  return {'chips_per_host_bounds': (*sizes, 1, 1)[:3]}
