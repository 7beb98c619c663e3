"""How arrays are split over the devices: one rule for each logical axis.

The mesh has three axes: rows are split over `data` and `fsdp`, the `embed` axis
of parameters over `fsdp` alone (each group along `data` holds a copy), and
heads, the MLP and the vocabulary over `model`.
"""

from collections.abc import Iterator, Sequence
import contextlib
import itertools
import math
import os
import re
import sys
import threading
from typing import Any

from absl import logging
from flax import linen as nn
from flax import traverse_util
import jax
from jax.experimental import mesh_utils
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
from orbax.checkpoint import multihost

from input_pipeline import errors

MESH_AXES = ('data', 'fsdp', 'model')
# What a run can require → JAX's name of it.
PLATFORMS = {'tpu': 'tpu', 'gpu': 'cuda'}
_LONGEST_WAIT_SECONDS = 7 * 24 * 3600
_MEETINGS = itertools.count()
# Split over more chips, a width of 768 is gathered in parts far smaller than a
# TPU's tile of 128 lanes: see docs/scaling.md.
MAX_GROUP = 16

# Logical axis -> mesh axes. A name that is not here is an error: Flax's own
# table would replicate it without a word.
RULES: dict[str, tuple[str, ...] | None] = {
    'batch': ('data', 'fsdp'),
    'embed': ('fsdp',),
    'vocab': ('model',),
    # Split by rows, for a part of the columns is less than a TPU's tile.
    'words': ('model', 'fsdp'),
    'mlp_in': ('model', 'fsdp'),
    'heads': ('model',),
    'mlp': ('model',),
    'activation_embed': None,
    'box': None,
    'head_size': None,
    'languages': None,
    'layers': None,
    'length': None,
    'one': None,
    'positions': None,
    'region_classes': None,
    'region_feature': None,
    'shared': None,
}


def _check_processes(coordinator: str, num_processes: int | None,
                     process_id: int | None) -> None:
  """Raises UserError for flags that do not belong together."""
  if not coordinator:
    if num_processes is not None or process_id is not None:
      raise errors.UserError(
          '--num_processes and --process_id need --coordinator=HOST:PORT')
  elif num_processes is None or process_id is None:
    raise errors.UserError(f'--coordinator={coordinator} needs '
                           '--num_processes and --process_id')
  elif not 0 <= process_id < num_processes:
    raise errors.UserError(
        f'--process_id is {process_id}; allowed: 0 to {num_processes - 1}')


def connect(coordinator: str = '', num_processes: int | None = None,
            process_id: int | None = None, *, wait_seconds: float = 50,
            require: str = '') -> None:
  """Connects the processes of a run; before anything else asks for devices.

  Without a coordinator JAX looks for what started this process: TPU machines
  of Google (GCE, GKE, several slices), Slurm, Open MPI. None = it is alone.

  Args:
    coordinator: 'host:port' of process 0, the same everywhere; '' = none.
    num_processes: of the run.
    process_id: from 0.
    wait_seconds: for the others; then this process ends.
    require: 'tpu' or 'gpu', which the run must find; '' = any device.

  Raises:
    UserError: flags that do not belong together, or no such device.
  """
  if require:
    jax.config.update('jax_platforms', f'{PLATFORMS[require]},cpu')
  _check_processes(coordinator, num_processes, process_id)
  with _patience(wait_seconds, (
      'the other processes of this run did not come within '
      f'{wait_seconds:g} s (--wait_seconds): start the same command on every '
      'host, and see that the port of the first is open to the others')):
    try:
      # Past its own limit JAX would end the process with a trace of C++.
      jax.distributed.initialize(
          coordinator or None, num_processes, process_id,
          initialization_timeout=int(wait_seconds) + 60)
    except (ValueError, RuntimeError) as error:
      # No cluster, or a notebook that has asked for devices: it is alone.
      if coordinator or not re.search(
          'coordinator_address|must be called before', str(error)):
        raise errors.UserError(f'several processes: {error}') from error
  if jax.distributed.is_initialized():
    # Read by processes on CPUs alone.
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  elif not require:
    return
  try:
    platform = jax.default_backend()
  except RuntimeError as error:
    raise errors.UserError(
        f'config.require is {require!r}, but JAX finds none ({error}); allowed '
        "here: '', which takes what there is") from error
  # On CPUs a program from the cache of compiled ones can run its collectives
  # in another order than one that is just compiled: the processes then take
  # each other's messages, and Gloo ends them.
  if platform == 'cpu' and jax.process_count() > 1:
    jax.config.update('jax_enable_compilation_cache', False)
  logging.info('process %d of %d, %d devices here of %d', jax.process_index(),
               jax.process_count(), jax.local_device_count(),
               jax.device_count())
  if not is_first():
    # One process prints for all.
    sys.stdout = open(os.devnull, 'w', encoding='utf-8')  # noqa: SIM115


@contextlib.contextmanager
def _patience(seconds: float, message: str) -> Iterator[None]:
  """Ends the process with a message where the block takes too long."""

  def stop():
    print(f'error: {message}', file=sys.stderr, flush=True)
    os._exit(2)  # What waits is C++, and hears of nothing else.

  timer = threading.Timer(seconds, stop)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def is_first() -> bool:
  """Returns whether this is the process that writes and prints for all."""
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def wait_for_all(what: str) -> None:
  """Returns when every process has come here, however long one works."""
  if jax.process_count() > 1:
    multihost.sync_global_processes(
        f'{what} {next(_MEETINGS)}', timeout=_LONGEST_WAIT_SECONDS,
        processes=set(range(jax.process_count())))


def of_all(value: float) -> list[float]:
  """Returns the value that each process has: what they decide by."""
  return gather_shares(np.array([value]), jax.process_count()).tolist()


def my_share(count: int) -> np.ndarray:
  """Returns the numbers below `count` that this process works on."""
  return np.arange(jax.process_index(), count, jax.process_count())


def gather_shares(part: np.ndarray, count: int) -> np.ndarray:
  """Returns the rows of all processes; `part` are those of `my_share`."""
  if jax.process_count() == 1:
    return part
  wait_for_all('shares')  # Gloo would lose patience with who comes early.
  most = -(-count // jax.process_count())
  padded = np.zeros((most, *part.shape[1:]), part.dtype)
  padded[:len(part)] = part
  return np.swapaxes(multihost_utils.process_allgather(padded), 0, 1).reshape(
      -1, *part.shape[1:])[:count]


def make_mesh(data: int = -1, fsdp: int = -1, model: int = 1,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns the mesh (data, fsdp, model) over the devices.

  Args:
    data: groups that hold a copy of the parameters each; -1 = all there are
      devices for. Several slices are split along it alone.
    fsdp: devices of a group that share rows and parameters; -1 = as many as
      there are for it, up to `MAX_GROUP`.
    model: devices that share heads, the MLP and the vocabulary.
    devices: by default, all there are.

  Raises:
    UserError: the three do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  shape = _mesh_shape(data, fsdp, model, len(devices), slices)
  axis_types = (AxisType.Auto,) * len(shape)
  if slices == 1:
    return jax.make_mesh(shape, MESH_AXES, axis_types, devices=devices)
  # Between slices the network is slow: only rows are split over them.
  return Mesh(mesh_utils.create_hybrid_device_mesh(
      (shape[0] // slices, *shape[1:]), (slices, 1, 1), devices), MESH_AXES,
              axis_types)


def _mesh_shape(data: int, fsdp: int, model: int, count: int,
                slices: int) -> tuple[int, int, int]:
  wanted = f'mesh.data={data}, mesh.fsdp={fsdp}, mesh.model={model}'
  known = math.prod(size for size in (data, fsdp, model) if size != -1)
  if min(data, fsdp) < -1 or known < 1 or model < 1 or count % known or (
      -1 not in (data, fsdp) and known != count):
    raise errors.UserError(
        f'{wanted} cannot be laid over {count} '
        f'device{"s" if count > 1 else ""}: their product must be {count}; '
        'data and fsdp may be -1')
  if fsdp == -1:
    rest = count // known
    # All that are left, where `data` is given; else a group of one slice.
    fsdp = rest if data != -1 else max(
        size for size in range(1, MAX_GROUP + 1) if rest // slices % size == 0)
  data = count // fsdp // model
  if data % slices:
    raise errors.UserError(
        f'{wanted}: data = {data} does not divide by the {slices} slices: fsdp '
        'and model must lie within one')
  return data, fsdp, model


def spec(mesh: Mesh, axes: Sequence[str | None], shape: Sequence[int],
         name: str) -> P:
  """Returns how an array is split.

  Args:
    mesh: of `make_mesh`.
    axes: the logical name of each of its axes; None = not split.
    shape: its sizes.
    name: what to call it in errors.

  Raises:
    KeyError: a logical axis without a rule.
    UserError: a size that the devices along its mesh axes do not divide.
  """
  for axis in axes:
    if axis is not None and axis not in RULES:
      raise KeyError(
          f'{name}: logical axis {axis!r} has no rule in sharding.RULES; '
          f'known: {", ".join(sorted(RULES))}')
  for axis, size in zip(axes, shape, strict=True):
    parts = num_parts(mesh, axis)
    if size % parts:
      raise errors.UserError(
          f'{name}: size {size} of axis {axis!r} does not divide by the '
          f'{parts} devices of mesh.{" x mesh.".join(RULES[axis])}')
  return P(*(RULES[axis] if axis else None for axis in axes))


def num_parts(mesh: Mesh | AbstractMesh, axis: str | None) -> int:
  """Returns the number of parts that a logical axis is split into."""
  return math.prod(mesh.shape[name] for name in (axis and RULES[axis]) or ())


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Returns x, split over the current mesh as its logical axes say.

  Without these the compiler is free to split activations like the FSDP
  parameters, along their width, and to sum every product over all devices.
  Outside `jax.set_mesh`, and for a size that does not divide (one row of
  `init`), nothing is asked for.

  Args:
    x: an activation, inside jit.
    *axes: the logical name of each of its axes; None = not split.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return x
  return jax.lax.with_sharding_constraint(x, P(*(
      RULES[axis] if axis and size % num_parts(mesh, axis) == 0 else None
      for axis, size in zip(axes, x.shape, strict=True))))


def of_params(mesh: Mesh, boxed: Any) -> Any:
  """Returns the NamedSharding of every parameter, in the unboxed tree.

  Args:
    mesh: of `make_mesh`.
    boxed: abstract parameters as `init_params` makes them, with axis names.
  """

  def shard(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not isinstance(leaf, nn.Partitioned):
      raise TypeError(f'{name}: a parameter without logical axis names')
    return NamedSharding(mesh, spec(mesh, leaf.names, leaf.value.shape, name))

  return jax.tree_util.tree_map_with_path(
      shard, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))


def of_opt_state(mesh: Mesh, tx: optax.GradientTransformation, params: Any,
                 shardings: Any) -> Any:
  """Returns the shardings of the optimizer's state: moments as parameters.

  Args:
    mesh: of `make_mesh`.
    tx: the optimizer.
    params: abstract trainable parameters.
    shardings: theirs.
  """
  known = traverse_util.flatten_dict(shardings)

  def find(path, _):
    # A moment's path ends as its parameter's; counts and adapters have another.
    return known.get(tuple(
        key.key for key in path if isinstance(key, jax.tree_util.DictKey)),
                     replicated(mesh))

  return jax.tree.map_with_path(find, jax.eval_shape(tx.init, params))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, P())


def of_rows(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array whose first axis is rows."""
  return NamedSharding(mesh, P(RULES['batch']))


def check_batch_size(mesh: Mesh, name: str, batch_size: int,
                     accumulation_steps: int = 1) -> None:
  """Raises UserError where a task's rows do not divide over the devices.

  Args:
    mesh: of `make_mesh`.
    name: the task's.
    batch_size: its rows.
    accumulation_steps: parts that they are worked on in.
  """
  key = f'tasks.{name}.batch_size'
  if batch_size % accumulation_steps:
    raise errors.UserError(
        f'{key}: size {batch_size} does not divide by accumulation_steps='
        f'{accumulation_steps}')
  if accumulation_steps > 1:
    key += f' / accumulation_steps={accumulation_steps}'
  spec(mesh, ('batch',), (batch_size // accumulation_steps,), key)


def abstract_rows(mesh: Mesh, rows: Any) -> Any:
  """Returns shapes and shardings of what `put_rows` makes of such rows.

  Args:
    mesh: of `make_mesh`.
    rows: a tree of arrays, or of anything with `shape` and `dtype`.
  """
  sharding = of_rows(mesh)
  hosts = num_parts(mesh, 'batch') // num_parts(mesh.local_mesh, 'batch')
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
          (hosts * x.shape[0], *x.shape[1:]), x.dtype, sharding=sharding), rows)


def settle(value: Any) -> Any:
  """Returns the value: computed, where one CPU simulates several devices.

  XLA has a thread for each of them, and a collective keeps it until all
  devices have come. Two programs on their way at once could take all threads
  and wait for each other; of one alone, each device has its own.

  Args:
    value: what a program with collectives gave.
  """
  if jax.default_backend() == 'cpu' and jax.local_device_count() > 1:
    jax.block_until_ready(value)
  return value


def put_rows(mesh: Mesh, rows: Any) -> Any:
  """Returns this host's rows (a tree of NumPy) as global arrays."""
  sharding = of_rows(mesh)
  return jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(
          sharding, np.asarray(x)), rows)
