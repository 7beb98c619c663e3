"""How the tests trace and compile, and processes that see several devices.

The largest part of the suite's time is JAX's. Without optimisation, and with
the emitters of before, XLA compiles a step five times as fast; what is computed
is the same but for rounding, and the models here are too small to gain by fast
code. What took long is kept, outside the checkout, for the suite's other
processes and its next run. Traces leave many objects that stay, so garbage is
looked for rarely, and operations do not remember the lines they come from: a
tenth of the time of the tests that trace most.
"""

import gc
import os
import socket

import jax

from input_pipeline import sources

_FAST = ('--xla_backend_optimization_level=0 '
         '--xla_cpu_use_fusion_emitters=false '
         '--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE')


def configure() -> None:
  """Sets this process up, and JAX for its children too; before JAX runs."""
  gc.set_threshold(100_000, 50, 100)
  os.environ['XLA_FLAGS'] = f'{_FAST} {os.environ.get("XLA_FLAGS", "")}'.strip()
  folder = sources.cache_dir() / 'compiled-tests'
  for name, value in (
      ('jax_compilation_cache_dir', str(folder)),
      ('jax_persistent_cache_min_compile_time_secs', 0.3),
      ('jax_traceback_in_locations_limit', 0)):
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def free_address() -> str:
  """Returns where the first of several processes can listen."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{free.getsockname()[1]}'


def environment(devices: int) -> dict[str, str]:
  """Returns the environment of a process with simulated CPU devices."""
  # NPROC is what XLA takes for processors: a thread waits in each collective of
  # each device, and two that nothing orders may be on their way at once.
  return os.environ | {
      'NPROC': str(4 * devices),
      'XLA_FLAGS': f'{_FAST} --xla_force_host_platform_device_count={devices}',
      'JAX_PLATFORMS': 'cpu'}
