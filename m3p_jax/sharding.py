"""How arrays are split over the devices: one rule for each logical axis.

The mesh has two axes: `data` splits rows and, as FSDP, the parameters'
`embed` axis; `model` splits heads, the MLP and the vocabulary.
"""

from collections.abc import Sequence
import os
from typing import Any

from absl import logging
from flax import linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import optax

from input_pipeline import errors

MESH_AXES = ('data', 'model')

# Logical axis -> mesh axis. A name that is not here is an error: Flax's own
# table would replicate it without a word.
RULES = {
    'batch': 'data',
    'embed': 'data',
    'vocab': 'model',
    'heads': 'model',
    'mlp': 'model',
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


def connect(coordinator: str, num_processes: int | None,
            process_id: int | None) -> None:
  """Connects the processes of a run; before anything else asks for devices.

  Without a coordinator a TPU pod is recognised by what its machines know of
  each other; any other machine stays alone.

  Args:
    coordinator: 'host:port' of process 0, the same everywhere; '' = none.
    num_processes: of the run.
    process_id: from 0.

  Raises:
    UserError: flags that do not belong together.
  """
  if not coordinator:
    if num_processes is not None or process_id is not None:
      raise errors.UserError(
          '--num_processes and --process_id need --coordinator=HOST:PORT')
    workers = os.environ.get('TPU_WORKER_HOSTNAMES', '')
    if ',' not in workers and 'MEGASCALE_COORDINATOR_ADDRESS' not in os.environ:
      return
    jax.distributed.initialize()
  else:
    if num_processes is None or process_id is None:
      raise errors.UserError(f'--coordinator={coordinator} needs '
                             '--num_processes and --process_id')
    if not 0 <= process_id < num_processes:
      raise errors.UserError(
          f'--process_id is {process_id}; allowed: 0 to {num_processes - 1}')
    # Read by processes on CPUs alone.
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(coordinator, num_processes, process_id)
    # On CPUs a program from the cache of compiled ones can run its collectives
    # in another order than one that is just compiled: the processes then take
    # each other's messages, and Gloo ends them.
    if jax.default_backend() == 'cpu':
      jax.config.update('jax_enable_compilation_cache', False)
  logging.info('process %d of %d, %d devices here of %d', jax.process_index(),
               jax.process_count(), jax.local_device_count(),
               jax.device_count())


def make_mesh(data: int = -1, model: int = 1,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns the mesh (data, model) over the devices.

  Args:
    data: devices along `data`; -1 = all that are left.
    model: devices along `model`; -1 = all that are left.
    devices: by default, all there are.

  Raises:
    UserError: the two do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = {'data': data, 'model': model}
  count = len(devices)
  known = [size for size in sizes.values() if size != -1]
  rest = int(np.prod(known))
  if rest < 1 or len(known) == 0 or count % rest or (
      len(known) == 2 and rest != count):
    raise errors.UserError(
        f'mesh.data={data}, mesh.model={model} cannot be laid over {count} '
        f'device{"s" if count > 1 else ""}: their product must be {count}, '
        'and one of them may be -1')
  shape = tuple(count // rest if size == -1 else size
                for size in sizes.values())
  axis_types = (AxisType.Auto,) * 2
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    return jax.make_mesh(shape, MESH_AXES, axis_types, devices=devices)
  if shape[0] % slices:
    raise errors.UserError(
        f'mesh.data={shape[0]} does not divide by the {slices} slices: the '
        'model axis must lie within one')
  # Between slices the network is slow: only rows are split over them.
  return Mesh(mesh_utils.create_hybrid_device_mesh(
      (shape[0] // slices, shape[1]), (slices, 1), devices), MESH_AXES,
              axis_types)


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
    UserError: a size that the devices along its mesh axis do not divide.
  """
  for axis in axes:
    if axis is not None and axis not in RULES:
      raise KeyError(
          f'{name}: logical axis {axis!r} has no rule in sharding.RULES; '
          f'known: {", ".join(sorted(RULES))}')
  mesh_axes = [None if axis is None else RULES[axis] for axis in axes]
  for axis, mesh_axis, size in zip(axes, mesh_axes, shape, strict=True):
    if mesh_axis is not None and size % mesh.shape[mesh_axis]:
      raise errors.UserError(
          f'{name}: size {size} of axis {axis!r} does not divide by the '
          f'{mesh.shape[mesh_axis]} devices of mesh.{mesh_axis}')
  return P(*mesh_axes)


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
  mesh_axes = [None if axis is None else RULES[axis] for axis in axes]
  return jax.lax.with_sharding_constraint(x, P(*(
      axis if axis and size % mesh.shape[axis] == 0 else None
      for axis, size in zip(mesh_axes, x.shape, strict=True))))


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
  return optax.tree.map_params(
      tx, lambda _, sharding: sharding, jax.eval_shape(tx.init, params),
      shardings, transform_non_params=lambda _: replicated(mesh))


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
  hosts = mesh.shape['data'] // mesh.local_mesh.shape['data']
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
