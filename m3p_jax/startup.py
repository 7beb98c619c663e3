"""Where a run starts: geometry, first parameters, optimizer, manifest."""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import functools
import json
from typing import Any, NamedTuple

from absl import logging
from flax import linen as nn
import jax
from jax.sharding import Mesh
import ml_collections
import optax

from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import paths
from input_pipeline import sources
from input_pipeline import streams as streams_lib
from input_pipeline import tokenizer as tokenizer_lib
from m3p_jax import adversary
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import optimizer
from m3p_jax import parts
from m3p_jax import sharding
from m3p_jax import train_step
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p
from m3p_jax.objectives import frequencies as frequencies_lib

ConfigDict = ml_collections.ConfigDict
Frequencies = frequencies_lib.Frequencies
ModelConfig = model_config_lib.ModelConfig
# A manifest of prepared data, and its path.
Manifest = tuple[dict[str, Any], paths.Path]
# Parts of a manifest that a model's inputs must share with its weights'.
_INPUT_KEYS = ('tokenizer', 'feature_extractor', 'normalisation', 'class_ids')


class Start(NamedTuple):
  """What is known before the first parameter is made.

  Attributes:
    config: geometry.
    languages: a language's id is its index here.
    manifest: of the checkpoints this run will write.
    source: where the parameters come from, in words.
    fresh: the parameters that the weights of `source` lack, in words.
  """
  config: ModelConfig
  languages: tuple[str, ...]
  manifest: dict[str, Any]
  source: str
  fresh: tuple[str, ...] = ()


def model_config(config: ConfigDict) -> ModelConfig:
  """Returns the geometry that a config and its tasks ask for.

  Raises:
    UserError: there is none such.
  """
  asked = _refused_by_name(model_config_lib.geometry, config.model)
  needs = config_lib.needs(config)
  heads = _refused_by_name(
      model_config_lib.join_heads, asked.heads, needs.pop('heads', ()))
  return dataclasses.replace(asked, heads=heads, **{
      name: max(value, getattr(asked, name)) for name, value in needs.items()})


def model_options(config: ConfigDict,
                  platform: str | None = None) -> model_config_lib.Options:
  """Returns how a run computes the model, or raises UserError.

  `platform` is what it is compiled for; None = this process's.
  """
  return _refused_by_name(model_config_lib.options, config.model, platform)


def _refused_by_name(function: Callable[..., Any], *args: Any) -> Any:
  try:
    return function(*args)
  except ValueError as error:
    raise errors.UserError(str(error)) from error


def resolve(config: ConfigDict, workdir: paths.Path, *,
            given: Collection[str] = ()) -> Start:
  """Returns the start: the workdir's newest checkpoint, init_from, or fresh.

  Args:
    config: its model gives way to that of the checkpoint, but for parts that
      can be added to weights that a run starts from, see `parts`.
    workdir: of the run.
    given: dotted keys of the command line; a model key among them that
      contradicts the checkpoint is an error.

  Raises:
    UserError: geometry, languages or data contradict the checkpoint.
  """
  asked = model_config(config)
  languages = tuple(config.data.languages)
  streams = {streams_lib.key(task): streams_lib.data_of(config.data, task)
             for task in config.tasks.values()}
  manifests = [
      read_manifest(config.data.data_dir, dataset) for _, data
      in sorted(streams.items()) for dataset in data.datasets]
  manifest = _common(manifests)
  steps = checkpoint.steps(workdir / 'checkpoints')
  path, source = None, 'fresh'
  fresh: tuple[str, ...] = ()
  saved: Mapping[str, Any] = {'objectives': []}
  if steps:
    path = workdir / 'checkpoints'
    source = f'step {steps[-1]} of {path}'
  elif config.init_from == 'e5':
    source = 'multilingual-E5-small'
  elif config.init_from:
    path = paths.of(config.init_from)
    source = str(path)
  if path is not None:
    saved_config, saved = checkpoint.peek(path)
    whole = saved_config if steps else _refused_by_name(
        functools.partial(parts.geometry, needs=config_lib.needs(config),
                          given=given), saved_config, asked)
    _check_geometry(asked, whole, path, given)
    asked, fresh = whole, parts.describe(
        whole, saved_config, checkpoint.find(path)[0])
    check_inputs(manifest, saved, 'the prepared data', path)
    if saved_config.num_languages > 1:
      languages = _saved_languages(languages, saved, path)
    _check_needs(config, whole, path)
  for content, where in manifests:
    check_fit(asked, content, where, source,
              classes=any(task.objective == 'masked_region'
                          for task in config.tasks.values()))
  _check_labels(config)
  # Of weights that do not say what they have learned it stays unknown.
  before = saved.get('objectives')
  if before is not None:
    manifest['objectives'] = sorted({*before, *(
        task.objective for task in config.tasks.values())})
  return Start(asked, languages,
               manifest | {'languages': list(languages)}, source, fresh)


def initial_params(start: Start, config: ConfigDict, mesh: Mesh,
                   key: jax.Array) -> Any:
  """Returns the parameters of a run without a checkpoint, on the mesh."""
  shardings = sharding.of_params(mesh, m3p.abstract_params(start.config))
  if config.init_from and config.init_from != 'e5':
    params, saved, _ = checkpoint.load(
        config.init_from, shard=lambda boxed: sharding.of_params(mesh, boxed))
    return parts.add(
        params, saved, start.config, path=checkpoint.find(config.init_from)[0],
        shardings=shardings, key=key)
  if config.init_from == 'e5':
    from m3p_jax.convert import e5  # Reads a package that others never need.
    return jax.device_put(
        nn.unbox(e5.to_params(start.config, key)), shardings)
  return jax.jit(
      lambda key: nn.unbox(m3p.init_params(start.config, key)),
      out_shardings=shardings)(key)


def make_optimizer(config: ConfigDict,
                   ) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Returns (learning rate by past updates, optimizer)."""
  options = config.optimizer.to_dict()
  schedule = optimizer.make_schedule(
      num_train_steps=config.num_train_steps,
      **{key: options.pop(key)
         for key in ('learning_rate', 'schedule', 'warmup_steps')})
  return schedule, optimizer.make_optimizer(
      schedule, num_layers=config.model.num_layers, seed=config.seed,
      **options)


def make_tasks(task_configs: ConfigDict, *,
               frequencies: Mapping[str, Frequencies] | None = None,
               ) -> tuple[train_step.Task, ...]:
  """Returns the tasks of `config.tasks`, in the order of their names.

  Losses that know a baseline measure it where `frequencies` of their streams
  are given.
  """
  tasks = []
  for name, task in sorted(task_configs.items()):
    loss = config_lib.find_loss(name, task)
    options = dict(task.options) | config_lib.filled(name, loss)
    if frequencies and config_lib.takes_baseline(loss):
      options['baseline'] = frequencies[streams_lib.key(task)]
    points = config_lib.schedule_points(name, task)
    tasks.append(train_step.Task(
        name, functools.partial(loss, **options), task.weight,
        optimizer.points_schedule(points) if points else None,
        adversary.Settings(**task.noise) if task.noise else None))
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


def read_manifest(data_dir: str | paths.Path, dataset: str) -> Manifest:
  """Returns the manifest of a prepared dataset, classes as they were read.

  Raises:
    UserError: it is not prepared.
  """
  path = paths.of(data_dir) / dataset / 'manifest.json'
  if not path.exists():
    raise errors.UserError(
        f'{path}: not there; prepare it with `python -m '
        f'input_pipeline.prepare --dataset={dataset} --data_dir={data_dir}`')
  content = json.loads(path.read_text())
  # What a file of regions says of itself, which its format leaves open.
  found = content.get('features', {}).get('found', {})
  return content | {'class_ids': found.get('class_ids')}, path


def _common(manifests: Sequence[Manifest]) -> dict[str, Any]:
  """Returns what all prepared datasets agree on.

  And, as `data`, what each of them was made from.

  Raises:
    UserError: two were prepared differently.
  """
  manifest: dict[str, Any] = {}
  first: dict[str, paths.Path] = {}
  data: dict[str, str] = {}
  for content, path in manifests:
    data[path.parent.name] = fingerprint.of(content.get('options'))
    for key in _INPUT_KEYS:
      value = content.get(key)
      if value is None:  # A text has no region features.
        continue
      if _compared(key, manifest.setdefault(key, value)) != _compared(
          key, value):
        raise errors.UserError(
            f'{key} of {path} is {value}, but of {first[key]} '
            f'{manifest[key]}: prepare them alike')
      first.setdefault(key, path)
  return manifest | {'data': data}


def check_same_data(manifest: Mapping[str, Any], folder: paths.Path) -> None:
  """Raises UserError where a run would go on with a dataset prepared again.

  From other files or with other options than when `folder`, the run's
  checkpoints, was begun; those of version 1 do not tell.
  """
  saved = checkpoint.peek(folder)[1].get('data', {})
  for dataset, key in manifest['data'].items():
    if saved.get(dataset, key) != key:
      raise errors.UserError(
          f'{dataset} was prepared again, from other files or with other '
          f'options, since {folder} was saved: prepare it as it was, or start '
          'in another --workdir, with init_from')


def check_inputs(found: Mapping[str, Any], saved: Mapping[str, Any],
                 where: Any, path: paths.Path) -> None:
  """Raises UserError where data were made by other means than the weights'.

  What one of the manifests, `found` of the data (called `where`) and `saved`
  of the weights, does not name is not compared.
  """
  for key in _INPUT_KEYS:
    ours, theirs = found.get(key), saved.get(key)
    if None not in (ours, theirs) and _compared(key, ours) != _compared(
        key, theirs):
      raise errors.UserError(
          f'{key} of {where} is {ours}, but the weights of {path} were trained '
          f'with {theirs}')


def _compared(key: str, value: Any) -> Any:
  """Returns what decides whether a part of a manifest is the same."""
  if key != 'tokenizer':
    return value
  return tokenizer_lib.known_as(value.get('sha256', ''))


def check_fit(config: ModelConfig, content: Mapping[str, Any], where: Any,
              source: Any, *, classes: bool = False) -> None:
  """Raises UserError where data hold what the model has no room for.

  JAX would take the last row of a table for every number beyond it.

  Args:
    config: geometry.
    content: manifest of the data; old ones do not name all sizes.
    where: what the data are called.
    source: what the weights are called.
    classes: whether classes of regions are predicted.
  """
  ids = content.get('tokenizer', {}).get('vocab_size', 0)
  if config.vocab_size < ids:
    raise errors.UserError(
        f'model.vocab_size is {config.vocab_size:,} ({source}), but the '
        f'tokenizer of {where} has {ids:,} ids; allowed: as many rows, or more')
  width = (content.get('feature_extractor') or {}).get(
      'feature_dim', config.region_feature_dim)
  if config.region_feature_dim != width:
    raise errors.UserError(
        f'model.region_feature_dim is {config.region_feature_dim:,} ({source}),'
        f' but the regions of {where} have {width:,} numbers; allowed: as many')
  regions = (content.get('feature_extractor') or {}).get('num_regions', 0)
  if 0 < config.text_position < regions:
    raise errors.UserError(
        f'model.text_position is {config.text_position} ({source}), but the '
        f'pictures of {where} have up to {regions} regions; allowed: as many, '
        'or more')
  last = content.get('max_class_id', 0)
  if classes and last >= config.num_region_classes:
    raise errors.UserError(
        f'model.num_region_classes is {config.num_region_classes:,} ({source}),'
        f' but the regions of {where} have classes up to {last:,}; allowed: up '
        f'to {config.num_region_classes - 1:,}, where 0 is the background')


def _check_labels(config: ConfigDict) -> None:
  """Raises UserError where a task's head has no room for its data's labels."""
  for name, task in config.tasks.items():
    asked = task.options.get('num_labels')
    for dataset in streams_lib.data_of(
        config.data, task).datasets if asked else ():
      labels = read_manifest(config.data.data_dir, dataset)[0].get('labels', ())
      if asked < len(labels):
        raise errors.UserError(
            f'tasks.{name}.options.num_labels is {asked}; allowed: '
            f'{len(labels)}, the labels of {dataset}, or more')


def _check_geometry(asked: ModelConfig, saved: ModelConfig,
                    path: paths.Path, given: Collection[str]) -> None:
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


def _check_needs(config: ConfigDict, found: ModelConfig,
                 path: paths.Path) -> None:
  """Raises UserError where a run goes on without what its tasks need."""
  for name, value in config_lib.needs(config).items():
    has = getattr(found, name)
    if not set(value) <= set(has) if name == 'heads' else has < value:
      raise errors.UserError(
          f'the tasks need model.{name}={value}, but it is {has} in {path}, '
          'and a run that goes on gets no new parts: start in another '
          '--workdir, with init_from')


def _saved_languages(languages: tuple[str, ...], saved: Mapping[str, Any],
                     path: paths.Path) -> tuple[str, ...]:
  """Returns the checkpoint's languages, which its language table is for."""
  known = tuple(saved.get('languages', languages))
  missing = [language for language in languages if language not in known]
  if missing:
    raise errors.UserError(
        f'data.languages: {", ".join(missing)} not among the languages of '
        f'{path}: {", ".join(known)}')
  return known
