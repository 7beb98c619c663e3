"""How the tests compile, and processes that see several devices.

Most of the suite's time is XLA's. Without optimisation, and with the emitters
of before, it compiles a step five times as fast; what is computed is the same
but for rounding, and the models here are too small to gain by fast code.
"""

import os

_FAST = ('--xla_backend_optimization_level=0 '
         '--xla_cpu_use_fusion_emitters=false')


def use_fast_flags() -> None:
  """Sets the flags for this process and its children; before JAX is used."""
  os.environ['XLA_FLAGS'] = f'{_FAST} {os.environ.get("XLA_FLAGS", "")}'.strip()


def environment(devices: int) -> dict[str, str]:
  """Returns the environment of a process with simulated CPU devices."""
  return os.environ | {
      'XLA_FLAGS': f'{_FAST} --xla_force_host_platform_device_count={devices}',
      'JAX_PLATFORMS': 'cpu'}
