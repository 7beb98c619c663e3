"""Checkpoints: Orbax for arrays, tf.data's own for the iterator.

A checkpoint is a folder `checkpoints/STEP/` that appears whole or not at all:
`params/` (every parameter, float32, or its average where there is one),
`optimizer/` and `data/` (what training needs to go on; absent where a
checkpoint holds weights alone), `config.json` (the model's geometry),
`manifest.json` (tokenizer, region features, languages) and, where there are
any, `validation.json` (the loss) and `unlogged.json` (sums since the last line
of metrics.jsonl). Exported weights (`packed.py`) are read wherever a checkpoint
is.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import json
from typing import Any

from absl import logging
from flax import linen as nn
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import packed
from m3p_jax import sharding
from m3p_jax import train_step
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p

ModelConfig = model_config_lib.ModelConfig
_VALIDATION = 'validation.json'
# How the system, or the library that writes arrays, says that a disk is full.
_FULL = ('No space left', 'ENOSPC', 'RESOURCE_EXHAUSTED', 'File too large',
         'EFBIG', 'Disk quota exceeded', 'EDQUOT')


class Checkpointer:
  """Saves to the `checkpoints/` of a run, and restores from it."""

  def __init__(self, folder: paths.Path, *, keep: int = 3):
    """Opens nothing yet; a save makes `folder`, and keeps the newest `keep`."""
    self.folder, self._keep = folder.absolute(), keep
    self._manager: ocp.CheckpointManager | None = None

  def save(self, state: train_step.TrainState, iterator: Any, *,
           config: ModelConfig, manifest: Mapping[str, Any],
           unlogged: Mapping[str, Any] | None = None,
           loss: float | None = None) -> None:
    """Starts to save; returns when the state may be changed again.

    Args:
      state: saved under its own step.
      iterator: of tf.data, as it is after that step; None = weights alone.
      config: geometry.
      manifest: what the model was trained to read.
      unlogged: of `metrics.Progress`.
      loss: on the validation split; the checkpoint with the lowest stays.

    Raises:
      UserError: the disk is full.
    """
    files = {'config.json': dataclasses.asdict(config),
             'manifest.json': dict(manifest)}
    if unlogged:
      files['unlogged.json'] = dict(unlogged)
    if loss is not None:
      files[_VALIDATION] = {'loss': loss}
    # Who reads a checkpoint reads the average, where there is one.
    state = state.swapped()
    items = {
        'params': ocp.args.StandardSave(state.all_params()),
        'data': _Data(iterator, files)}
    if iterator is not None:
      items['optimizer'] = ocp.args.StandardSave(state.opt_state)
    if self._manager is None:
      policy = checkpoint_managers.preservation_policy
      self._manager = ocp.CheckpointManager(
          self.folder, options=ocp.CheckpointManagerOptions(
              cleanup_tmp_directories=True,
              preservation_policy=policy.AnyPreservationPolicy([
                  policy.LatestN(self._keep), _KeepBest(self.folder)])))
    with _full_disk_is_named(self.folder):
      self._manager.save(int(state.step), args=ocp.args.Composite(**items))

  def restore(self, state: train_step.TrainState,
              iterator: Any) -> train_step.TrainState | None:
    """Returns the newest good state and sets the iterator; None = none saved.

    Newer checkpoints that are damaged are put aside as `damaged_STEP`, so
    that their steps can be saved again.

    Args:
      state: abstract, with shardings; any mesh.
      iterator: of tf.data.

    Raises:
      UserError: there are checkpoints, but none that can be restored.
    """
    if not steps(self.folder):
      return None
    args = dict(
        params=ocp.args.StandardRestore(state.all_params()),
        optimizer=ocp.args.StandardRestore(state.opt_state),
        data=_Data(iterator))
    path, items = _newest_good(
        find(self.folder), lambda path: _restore_all(path, args))
    for newer in steps(self.folder):
      if newer > int(path.name) and sharding.is_first():
        (self.folder / str(newer)).rename(self.folder / f'damaged_{newer}')
    sharding.wait_for_all('damaged checkpoints aside')
    return state.replace(
        step=jnp.asarray(int(path.name), jnp.int32),
        opt_state=items['optimizer']).with_params(items['params']).swapped()

  def unlogged(self, step: int) -> dict[str, Any]:
    """Returns what `save` was given as such at this step, or {}."""
    path = self.folder / str(step) / 'unlogged.json'
    return json.loads(path.read_text()) if path.exists() else {}

  def is_best(self, loss: float) -> bool:
    """Returns whether no checkpoint has a validation loss as low as this."""
    _, lowest = _best(self.folder)
    return lowest is None or loss < lowest

  def wait(self) -> None:
    """Returns when everything is on disk."""
    if self._manager:
      with _full_disk_is_named(self.folder):
        self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and stops the threads that write."""
    manager, self._manager = self._manager, None
    if manager:
      with _full_disk_is_named(self.folder):
        manager.close()


class _DataHandler(ocp.CheckpointHandler):
  """Saves the tf.data iterator, and JSON files beside the items' folders."""

  def save(self, directory, args: '_Data'):
    if jax.process_index() == 0:
      # The step's folder is still a draft here: the files appear with it.
      for name, content in args.files.items():
        (directory.parent / name).write_text(json.dumps(content, indent=2))
      if args.iterator is not None:
        _iterator_checkpoint(args.iterator).write(_iterator_prefix(directory))

  def restore(self, directory, args: '_Data'):
    _iterator_checkpoint(args.iterator).read(
        _iterator_prefix(directory)).assert_consumed()


@ocp.args.register_with_handler(_DataHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Data(ocp.args.CheckpointArgs):
  """An iterator of tf.data, or None to save none, and {file name: content}."""
  iterator: Any
  files: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _iterator_checkpoint(iterator):
  import tensorflow as tf  # Evaluation and search need no TensorFlow.
  return tf.train.Checkpoint(iterator=iterator)


def _iterator_prefix(directory) -> str:
  # Every host is at the same step, and another number of them may go on.
  return str(directory / 'process_0')


@dataclasses.dataclass
class _KeepBest:
  """Keeps the best checkpoint, whatever its age; the interface is Orbax's."""
  folder: paths.Path

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    del context
    step, _ = _best(self.folder)
    return [info.step == step for info in checkpoints]


def _best(folder: paths.Path) -> tuple[int | None, float | None]:
  """Returns (step, loss) of the lowest validation loss, the newest of equals.

  (None, None) where no checkpoint was validated.
  """
  losses = {}
  for path in folder.glob(f'*/{_VALIDATION}'):
    if path.parent.name.isdecimal():
      losses[int(path.parent.name)] = json.loads(path.read_text())['loss']
  step = min(losses, key=lambda step: (losses[step], -step), default=None)
  return step, losses.get(step)


@contextlib.contextmanager
def _full_disk_is_named(folder: paths.Path) -> Iterator[None]:
  """Turns a full disk into an error that says so.

  Raises:
    UserError: the disk was full.
  """
  try:
    yield
  except Exception as error:
    if not any(word in str(error) for word in _FULL):
      raise
    whole = ', '.join(map(str, steps(folder)))
    kept = (f'the checkpoints of steps {whole} are whole' if whole
            else 'there is no checkpoint yet')
    raise errors.UserError(
        f'{folder}: the disk is full, a checkpoint could not be saved '
        f'({str(error).strip().splitlines()[0][:200]}); {kept}. Make room, or '
        'keep fewer (keep_checkpoints); the same command goes on from there'
    ) from error


def save_weights(path: paths.Path, params: Any, config: ModelConfig,
                 manifest: Mapping[str, Any]) -> None:
  """Writes one checkpoint of weights alone; `path` must not exist."""
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
    checkpointer.save(path.absolute(), args=ocp.args.Composite(
        params=ocp.args.StandardSave(params)))
  for name, content in (('config.json', dataclasses.asdict(config)),
                        ('manifest.json', dict(manifest))):
    (path / name).write_text(json.dumps(content, indent=2))


def steps(folder: paths.Path) -> list[int]:
  """Returns the steps of a folder's finished checkpoints, rising."""
  if not folder.is_dir():
    return []
  # In a bucket nothing appears whole: Orbax says in a file what has.
  return sorted(int(path.name) for path in folder.iterdir()
                if path.name.isdecimal() and (
                    not paths.is_url(path)
                    or ocp.utils.is_checkpoint_finalized(path)))


def load(path: str | paths.Path, *,
         shard: Callable[[Any], Any] | None = None
         ) -> tuple[Any, ModelConfig, dict[str, Any]]:
  """Returns (params, ModelConfig, manifest) of a checkpoint.

  Of a folder of checkpoints, or a workdir, the newest good one is read.

  Args:
    path: of any of the three.
    shard: from abstract boxed parameters to their shardings; None = all on
      the process's first device.

  Raises:
    UserError: no such folder, no checkpoint in it, or none that is good.
  """
  return load_newest(path, shard=shard)[1:]


def load_newest(path: str | paths.Path, *,
                shard: Callable[[Any], Any] | None = None
                ) -> tuple[paths.Path, Any, ModelConfig, dict[str, Any]]:
  """Returns where the checkpoint lies, and what `load` reads of it."""

  def read(path):
    config, manifest = _read_files(path)
    boxed = m3p.abstract_params(config)
    abstract = nn.unbox(boxed)
    if shard is None:
      device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
      shardings = jax.tree.map(lambda _: device, abstract)
    else:
      shardings = shard(boxed)
    if packed.is_here(path):
      return jax.device_put(
          packed.read(path, config, manifest), shardings), config, manifest
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings)
    params = _restore(
        path, params=ocp.args.StandardRestore(abstract))['params']
    return params, config, manifest

  found, content = _newest_good(find(path), read)
  return found, *content


def find(path: str | paths.Path) -> list[paths.Path]:
  """Returns the checkpoints of what `load` takes, the newest first.

  Raises:
    UserError: there is no checkpoint.
  """
  path = paths.of(path).absolute()
  if (path / 'params').is_dir() or packed.is_here(path):
    return [path]
  for folder in (path, path / 'checkpoints'):
    if found := steps(folder):
      return [folder / str(step) for step in reversed(found)]
  raise errors.UserError(
      f'{path}: no checkpoint here; expected a folder with params/, or with '
      'such folders, named by their steps, or exported weights')


def peek(path: str | paths.Path) -> tuple[ModelConfig, dict[str, Any]]:
  """Returns (geometry, manifest) of what `load` takes; reads no weights."""
  return _newest_good(find(path), _read_files)[1]


def _read_files(path: paths.Path) -> tuple[ModelConfig, dict[str, Any]]:
  config = json.loads((path / 'config.json').read_text())
  manifest = json.loads((path / 'manifest.json').read_text())
  return model_config_lib.geometry(config), manifest


def _newest_good(paths, read):
  """Returns (path, read(path)) of the first checkpoint that can be read."""
  for path in paths:
    try:
      return path, read(path)
    except errors.UserError:
      raise
    # Whatever is broken in it, an older one may be whole; the user is told.
    except Exception as error:
      reason = str(error).strip().split('\n')[0]
      if len(paths) == 1:
        raise errors.UserError(
            f'{path}: damaged checkpoint: {reason}') from error
      logging.warning('checkpoint %s is damaged, trying the one before it: %s',
                      path, reason)
  raise errors.UserError(
      f'{paths[0].parent}: none of its checkpoints can be read')


def _restore_all(path, items):
  if not (path / 'optimizer').is_dir():
    raise errors.UserError(f'{path} holds weights alone, and cannot be resumed;'
                           ' start from it with init_from in another --workdir')
  return _restore(path, **items)


def _restore(path, **items):
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
    return checkpointer.restore(path, args=ocp.args.Composite(**items))
