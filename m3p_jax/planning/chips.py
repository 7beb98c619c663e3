"""What an accelerator can do: the constants of `--mode=plan` and of MFU."""

from typing import NamedTuple

from input_pipeline import errors


class Chip(NamedTuple):
  """One chip, as its maker describes it.

  Attributes:
    kind: JAX's `device_kind`.
    peak_flops: bfloat16 operations a second.
    bandwidth: bytes a second between its memory and its cores.
    memory_bytes: its memory.
  """
  kind: str
  peak_flops: float
  bandwidth: float
  memory_bytes: float


# Source: cloud.google.com/tpu/docs, pages "TPU v4", "TPU v5e", "TPU v5p" and
# "TPU v6e": peak compute per chip (bf16), HBM bandwidth and capacity.
CHIPS = {
    'v4': Chip('TPU v4', 275e12, 1_228e9, 32 * 2**30),
    'v5e': Chip('TPU v5 lite', 197e12, 819e9, 16 * 2**30),
    'v5p': Chip('TPU v5', 459e12, 2_765e9, 95 * 2**30),
    'v6e': Chip('TPU v6 lite', 918e12, 1_640e9, 32 * 2**30),
}


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
  for chip in CHIPS.values():
    if chip.kind == device_kind:
      return chip
  return None
