"""Several processes as one: JAX's own distributed runtime."""

import os

from absl import logging
import jax

from input_pipeline import errors


def connect(coordinator: str, num_processes: int | None,
            process_id: int | None) -> None:
  """Connects the processes of a run; before anything else asks for devices.

  Without a coordinator a TPU pod is recognised by what its machines know of
  each other; any other machine stays alone.

  Args:
    coordinator: 'host:port' of process 0, the same everywhere; '' = none.
    num_processes: of the run.
    process_id: 0 to num_processes - 1.

  Raises:
    UserError: flags that do not belong together.
  """
  if not coordinator:
    if num_processes is not None or process_id is not None:
      raise errors.UserError(
          '--num_processes and --process_id need --coordinator=HOST:PORT')
    workers = os.environ.get('TPU_WORKER_HOSTNAMES', '')
    if ',' in workers or 'MEGASCALE_COORDINATOR_ADDRESS' in os.environ:
      jax.distributed.initialize()
      _tell()
    return
  if num_processes is None or process_id is None:
    raise errors.UserError(
        f'--coordinator={coordinator} needs --num_processes and --process_id')
  if not 0 <= process_id < num_processes:
    raise errors.UserError(
        f'--process_id is {process_id}; allowed: 0 to {num_processes - 1}')
  # Read by processes on CPUs alone.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(coordinator, num_processes, process_id)
  # On CPUs a program from the cache of compiled ones can run its collectives in
  # another order than one that is just compiled: the processes then take each
  # other's messages, and Gloo ends them.
  if jax.default_backend() == 'cpu':
    jax.config.update('jax_enable_compilation_cache', False)
  _tell()


def is_first() -> bool:
  """Returns whether this process writes what is written once."""
  return jax.process_index() == 0


def _tell() -> None:
  logging.info('process %d of %d, %d devices here of %d', jax.process_index(),
               jax.process_count(), jax.local_device_count(),
               jax.device_count())
