"""Where a run starts: its geometry, first parameters and manifest."""

from collections.abc import Collection, Mapping
import dataclasses
import functools
import json
import pathlib
from typing import Any, NamedTuple

from absl import logging
from flax import linen as nn
import jax
from jax.sharding import Mesh
import ml_collections
import optax

from input_pipeline import errors
from input_pipeline import sources
from m3p_jax import checkpoint
from m3p_jax import config_check
from m3p_jax import optimizer
from m3p_jax import sharding
from m3p_jax import train_step
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p
from m3p_jax.training import frequencies as frequencies_lib

ConfigDict = ml_collections.ConfigDict
Frequencies = frequencies_lib.Frequencies
ModelConfig = model_config_lib.ModelConfig
# Parts of a manifest that a model's inputs must share with its weights'.
INPUT_KEYS = ('tokenizer', 'feature_extractor', 'normalisation')


class Start(NamedTuple):
  """What is known before the first parameter is made.

  Attributes:
    config: geometry.
    languages: a language's id is its index here.
    manifest: of the checkpoints this run will write.
    source: where the parameters come from, in words.
  """
  config: ModelConfig
  languages: tuple[str, ...]
  manifest: dict[str, Any]
  source: str


def model_config(config: ConfigDict) -> ModelConfig:
  """Returns the geometry that a config asks for.

  Raises:
    UserError: there can be no such model.
  """
  try:
    return model_config_lib.geometry(config.model)
  except ValueError as error:
    raise errors.UserError(str(error)) from error


def model_options(config: ConfigDict,
                  platform: str | None = None) -> model_config_lib.Options:
  """Returns how a config's run computes the model.

  Args:
    config: of the run.
    platform: that it is compiled for; None = this process's.

  Raises:
    UserError: a dtype or remat that there is not.
  """
  try:
    return model_config_lib.options(config.model, platform)
  except ValueError as error:
    raise errors.UserError(str(error)) from error


def resolve(config: ConfigDict, workdir: pathlib.Path, *,
            given: Collection[str] = ()) -> Start:
  """Returns the start: the workdir's newest checkpoint, init_from, or fresh.

  Args:
    config: of the run.
    workdir: of the run.
    given: dotted keys of the command line; a model key among them that
      contradicts the checkpoint is an error, others give way to it.

  Raises:
    UserError: geometry, languages or data contradict the checkpoint.
  """
  asked = model_config(config)
  languages = tuple(config.data.languages)
  manifest = data_manifest(config)
  steps = checkpoint.steps(workdir / 'checkpoints')
  path, source = None, 'fresh'
  if steps:
    path = workdir / 'checkpoints'
    source = f'step {steps[-1]} of {path}'
  elif config.init_from == 'e5':
    source = 'multilingual-E5-small'
  elif config.init_from:
    path = pathlib.Path(config.init_from)
    source = str(path)
  if path is not None:
    saved_config, saved = checkpoint.peek(path)
    _check_geometry(asked, saved_config, path, given)
    asked = saved_config
    _check_manifest(manifest, saved, path)
    if asked.num_languages > 1:
      languages = _saved_languages(languages, saved, path)
  return Start(asked, languages,
               manifest | {'languages': list(languages)}, source)


def initial_params(start: Start, config: ConfigDict, mesh: Mesh,
                   key: jax.Array) -> Any:
  """Returns the parameters of a run without a checkpoint, on the mesh."""
  if config.init_from and config.init_from != 'e5':
    return checkpoint.load(
        config.init_from,
        shard=lambda boxed: sharding.of_params(mesh, boxed))[0]

  shardings = sharding.of_params(mesh, m3p.abstract_params(start.config))
  if config.init_from == 'e5':
    from m3p_jax.convert import e5  # Reads a package that others never need.
    return jax.device_put(
        nn.unbox(e5.to_params(start.config, key)), shardings)
  return jax.jit(
      lambda key: nn.unbox(m3p.init_params(start.config, key)),
      out_shardings=shardings)(key)


def make_optimizer(config: ConfigDict):
  """Returns (schedule, optax transformation)."""
  options = config.optimizer.to_dict()
  schedule = optimizer.make_schedule(
      num_train_steps=config.num_train_steps,
      **{key: options.pop(key)
         for key in ('learning_rate', 'schedule', 'warmup_steps')})
  return schedule, optimizer.make_optimizer(schedule, **options)


def make_tasks(task_configs: ConfigDict, *,
               frequencies: Mapping[str, Frequencies] | None = None,
               ) -> tuple[train_step.Task, ...]:
  """Returns the tasks, in the order of their names.

  Args:
    task_configs: `config.tasks`.
    frequencies: of each stream; losses that know a baseline measure it.
  """
  tasks = []
  for name, task in sorted(task_configs.items()):
    loss = config_check.find_loss(name, task)
    options = dict(task.options)
    if frequencies and config_check.takes_baseline(loss):
      options['baseline'] = frequencies[task.stream]
    tasks.append(train_step.Task(
        name, functools.partial(loss, **options), task.weight))
  return tuple(tasks)


def abstract_state(config: ModelConfig, *, mesh: Mesh,
                   tx: optax.GradientTransformation,
                   rate_factors: optimizer.RateFactors):
  """Returns (state of shapes and shardings, function from params to it)."""
  create = functools.partial(
      train_step.create_state, tx=tx, rate_factors=rate_factors)
  boxed = m3p.abstract_params(config)
  optimizer.check_rate_factors(nn.unbox(boxed), rate_factors)
  state = jax.eval_shape(create, nn.unbox(boxed))
  trainable, frozen = optimizer.split(
      sharding.of_params(mesh, boxed), rate_factors)
  shardings = train_step.TrainState(
      step=sharding.replicated(mesh), params=trainable, frozen=frozen,
      opt_state=sharding.of_opt_state(mesh, tx, state.params, trainable))
  return jax.tree.map(
      lambda leaf, split: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=split), state, shardings), create


def use_compilation_cache() -> None:
  """Keeps compiled steps in the cache, unless the user chose a place."""
  if getattr(jax.config, 'jax_compilation_cache_dir') is None:  # Untyped.
    jax.config.update('jax_compilation_cache_dir',
                      str(sources.cache_dir() / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)


def data_manifest(config: ConfigDict) -> dict[str, Any]:
  """Returns what the prepared datasets of the run's streams agree on.

  Raises:
    UserError: a dataset is not prepared, or two were prepared differently.
  """
  manifest, first = {}, {}
  streams = {task.stream for task in config.tasks.values()}
  for stream in sorted(streams):
    for dataset in config.data[stream].datasets:
      path = pathlib.Path(config.data.data_dir) / dataset / 'manifest.json'
      if not path.exists():
        raise errors.UserError(
            f'{path}: not there; prepare it with `python -m '
            f'input_pipeline.prepare --dataset={dataset} '
            f'--data_dir={config.data.data_dir}`')
      content = json.loads(path.read_text())
      for key in INPUT_KEYS:
        value = content.get(key)
        if value is None:  # A text has no region features.
          continue
        if manifest.setdefault(key, value) != value:
          raise errors.UserError(
              f'{key} of {path} is {value}, but of {first[key]} '
              f'{manifest[key]}: prepare them alike')
        first.setdefault(key, path)
  return manifest


def _check_geometry(asked: ModelConfig, saved: ModelConfig,
                    path: pathlib.Path, given: Collection[str]) -> None:
  """Raises UserError where the command line contradicts a checkpoint."""
  for field in dataclasses.fields(ModelConfig):
    name = field.name
    if getattr(asked, name) == getattr(saved, name):
      continue
    message = (f'model.{name} is {getattr(asked, name)}, but '
               f'{getattr(saved, name)} in {path}')
    if f'model.{name}' in given:
      raise errors.UserError(f'{message}: leave it out')
    logging.warning('%s: the checkpoint decides', message)


def _check_manifest(manifest: Mapping[str, Any], saved: Mapping[str, Any],
                    path: pathlib.Path) -> None:
  for key in INPUT_KEYS:
    if key in manifest and saved.get(key, manifest[key]) != manifest[key]:
      raise errors.UserError(
          f'{key} of the prepared data is {manifest[key]}, but the weights of '
          f'{path} were trained with {saved[key]}')


def _saved_languages(languages: tuple[str, ...], saved: Mapping[str, Any],
                     path: pathlib.Path) -> tuple[str, ...]:
  """Returns the checkpoint's languages, which its language table is for."""
  known = tuple(saved.get('languages', languages))
  missing = [language for language in languages if language not in known]
  if missing:
    raise errors.UserError(
        f'data.languages: {", ".join(missing)} not among the languages of '
        f'{path}: {", ".join(known)}')
  return known
