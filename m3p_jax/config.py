"""What a config may hold: keys, values, and what may change on resuming."""

from collections.abc import Callable, Mapping
import dataclasses
import difflib
import importlib
import inspect
import json
import math
import pkgutil
import sys
from typing import Any

import ml_collections

from configs import base
from input_pipeline import errors
from input_pipeline import languages
from input_pipeline import paths
from input_pipeline import streams
from m3p_jax import adapters
from m3p_jax import adversary
from m3p_jax import objectives
from m3p_jax.model import config as model_config
from m3p_jax.model import heads

ConfigDict = ml_collections.ConfigDict
MOMENT_DTYPES = ('float32', 'bfloat16')
# Keys (or sections) that a run may be resumed with changed.
RESUMABLE = (
    'num_train_steps', 'log_every_steps', 'eval_every_steps', 'eval_batches',
    'checkpoint_every_steps', 'keep_checkpoints', 'evaluation', 'generate',
    'mesh', 'setting', 'data.data_dir', 'data.parallel_reads', 'model.dtype',
    'model.remat', 'plan', 'best_metric', 'max_bad_steps', 'profile_steps',
    'require')
# Keys of version 1 that mean nothing now; workdirs may have them.
_FORMER = ('model.platform',)
# Workdirs of version 1 have one folder's name here.
_NOW_LIST = 'data.image_text.code_switch.dictionary'
# Keywords of a loss that the loop fills, no options of a config.
_BASELINE, _HEAD = 'baseline', 'head'
# Old tasks do not have them.
_NEW_TASK_KEYS = {'rows': 'own', 'weight_schedule': '', 'data': {},
                  'noise': {}}
_NOISE = [field.name for field in dataclasses.fields(adversary.Settings)]
_TASK_KEYS = tuple(base.task_config('', '', 1))


def flatten(config: Mapping[str, Any] | ConfigDict,
            prefix: str = '') -> dict[str, Any]:
  """Returns {'a.b.c': value}; an empty section is a value."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict) and len(value):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def to_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the config as JSON holds it: tuples are lists."""
  return json.loads(json.dumps(config.to_dict()))


def get_config(path: str) -> ConfigDict:
  """Returns the config of a workdir's `config.json`.

  `--config=m3p_jax/config.py:PATH` loads it as any other config file.

  Raises:
    UserError: no JSON object, or a key or value that no config has.
  """
  try:
    content = json.loads(paths.of(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UserError(f'{path}: no config in JSON: {error}') from error
  if not isinstance(content, dict):
    raise errors.UserError(
        f'{path}: holds a {type(content).__name__}; allowed: an object, as the '
        'config.json of a workdir')
  for key in _FORMER:
    section, _, name = key.partition('.')
    if isinstance(content.get(section), dict):
      content[section].pop(name, None)
  config, tasks = base.get_config(), content.get('tasks', {})
  check_keys(content, path)
  _check_types(content, config, path)
  for name in tasks:
    _check_types(tasks[name], base.task_config('', '', 1), path,
                 f'tasks.{name}.')
    tasks[name] = _NEW_TASK_KEYS | tasks[name]
    if missing := [key for key in _TASK_KEYS if key not in tasks[name]]:
      raise errors.UserError(f'{path}: tasks.{name} has no {missing[0]}')
  config.update(ConfigDict(_with_tuples(content)))
  return config


def _check_types(content: Any, default: ConfigDict, path: str,
                 prefix: str = '') -> None:
  if not isinstance(content, dict):
    raise errors.UserError(f'{path}: {prefix[:-1]} is {content!r}; allowed: an '
                           f'object with {", ".join(default)}')
  for key, value in content.items():
    if isinstance(default[key], ConfigDict):
      if len(default[key]):
        _check_types(value, default[key], path, f'{prefix}{key}.')
      elif not isinstance(value, Mapping):
        raise errors.UserError(
            f'{path}: {prefix}{key} is {value!r}; allowed: an object')
    elif f'{prefix}{key}' == _NOW_LIST and isinstance(value, str):
      content[key] = [value]
    elif not _is_like(value, default[key]):
      raise errors.UserError(
          f'{path}: {prefix}{key} is {value!r}; allowed: a value like '
          f'{json.dumps(default[key])}')


def _is_like(value: Any, default: Any) -> bool:
  """Returns whether JSON's value may stand for a default of Python."""
  if isinstance(default, tuple):
    return isinstance(value, list) and all(
        _is_like(item, default[0]) for item in value if default)
  if isinstance(default, float):
    return isinstance(value, int | float) and not isinstance(value, bool)
  return type(value) is type(default)


def _with_tuples(value):
  if isinstance(value, Mapping):
    return {key: _with_tuples(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_with_tuples(item) for item in value)
  return value


def check(config: ConfigDict) -> None:
  """Raises UserError for the first key or value that cannot be meant."""
  check_keys(config, 'config')
  if not config.tasks:
    raise errors.UserError('tasks is empty: there is nothing to train')
  for name, task in config.tasks.items():
    loss = find_loss(name, task)
    errors.check_choice(f'stream of tasks.{name}', task.stream, streams.KINDS)
    read = getattr(sys.modules[loss.__module__], 'STREAMS', streams.KINDS)
    if task.stream not in read:
      raise errors.UserError(
          f'tasks.{name}.stream is {task.stream!r}; allowed for '
          f'{task.objective}: {", ".join(read)}')
    _check_least(f'tasks.{name}.batch_size', task.batch_size, 1)
    schedule_points(name, task)
    for key, value in task.noise.items():
      errors.check_choice(f'key of tasks.{name}.noise', key, _NOISE)
      _check_least(f'tasks.{name}.noise.{key}', value, int(key == 'steps'))
    section = streams.KINDS[task.stream]
    own, known = to_json(task.data), flatten(config.data[section])
    for key in flatten(own):
      errors.check_choice(f'key of tasks.{name}.data', key, known)
    _check_types(own, config.data[section], 'config', f'tasks.{name}.data.')
    if not streams.data_of(config.data, task).datasets:
      raise errors.UserError(
          f'data.{section}.datasets is empty, but tasks.{name} reads it')
  needs(config)
  for key in ('num_train_steps', 'log_every_steps', 'checkpoint_every_steps',
              'keep_checkpoints', 'accumulation_steps', 'max_bad_steps',
              'counted_rows', 'fitting_batches', 'data.parallel_reads',
              'plan.num_regions', 'plan.slices', 'plan.pictures',
              'plan.captions'):
    _check_least(key, config[key], 1)
  for key in ('eval_every_steps', 'eval_batches', 'profile_steps'):
    _check_least(key, config[key], 0)
  _check_least('optimizer.warmup_steps', config.optimizer.warmup_steps, 0)
  errors.check_choice('optimizer.first_moment_dtype',
                      config.optimizer.first_moment_dtype, MOMENT_DTYPES)
  for key in ('layer_decay', 'average_decay'):
    if not 0 <= config.optimizer[key] <= 1:
      raise errors.UserError(
          f'optimizer.{key} is {config.optimizer[key]}; allowed: 0 to 1')
  adapters.check_ranks(config.optimizer.adapters)
  _check_languages(config)


def known_keys() -> list[str]:
  """Returns every dotted key of `configs/base.py`."""
  return [key for key in flatten(base.get_config()) if key != 'tasks']


def check_keys(config: Mapping[str, Any] | ConfigDict, source: str) -> None:
  """Raises UserError for a key that `configs/base.py` does not have."""
  known = known_keys()
  for key in flatten(config):
    section, _, rest = key.partition('.')
    if section == 'tasks':
      name, _, field = rest.partition('.')
      if field:
        errors.check_choice(f'key of tasks.{name} in {source}',
                            field.split('.')[0], _TASK_KEYS)
    elif any(name.startswith(f'{key}.') for name in known):
      pass  # A section, whole; `_check_types` looks what it is.
    elif key not in known:
      raise errors.UserError(f'{source}: {unknown_key(key)}')


def unknown_key(key: str) -> str:
  """Returns the message for a key that does not exist."""
  known = known_keys()
  near = difflib.get_close_matches(key, known, n=1, cutoff=0)
  last = difflib.get_close_matches(
      key.split('.')[-1], [name.split('.')[-1] for name in known], n=1)
  if last:
    # The same last part in another section beats a similar whole.
    near = [name for name in known if name.split('.')[-1] == last[0]]
    near = difflib.get_close_matches(key, near, n=1, cutoff=0)
  return f'there is no config key {key!r}; the nearest is {near[0]!r}'


def find_loss(name: str, task: ConfigDict) -> Callable[..., Any]:
  """Returns the objective's `loss` function.

  Raises:
    UserError: no such objective, an option that it does not have, or a value of
      another kind.
  """
  files = [file.name for file in pkgutil.iter_modules(objectives.__path__)]
  errors.check_choice(f'objective of tasks.{name}', task.objective, files)
  module = importlib.import_module(f'{objectives.__name__}.{task.objective}')
  if not hasattr(module, 'loss'):
    raise errors.UserError(
        f'tasks.{name}.objective is {task.objective!r}, which has no `loss`')
  allowed = {key: parameter.default for key, parameter
             in inspect.signature(module.loss).parameters.items()
             if parameter.kind is parameter.KEYWORD_ONLY
             and key not in (_BASELINE, _HEAD)}
  for option, value in task.options.items():
    errors.check_choice(f'option of tasks.{name}', option, list(allowed))
    default = allowed[option]
    if isinstance(default, int | float | str) and not _is_like(value, default):
      raise errors.UserError(
          f'tasks.{name}.options.{option} is {value!r}; allowed: a value like '
          f'{default!r}')
  return module.loss


def needs(config: ConfigDict) -> dict[str, Any]:
  """Returns the parts of the geometry that the tasks need: {key: value}.

  An objective names them in `NEEDS`; a language table is as long as
  `data.languages`. `HEAD` names the file of a head and the option that says
  how many numbers it gives: each task has one of its own.

  Raises:
    UserError: see `find_loss`, or a part or head that there is not, or its
      number is neither given nor has a default.
  """
  found: dict[str, Any] = {}
  for name, task in sorted(config.tasks.items()):
    loss = find_loss(name, task)
    module = sys.modules[loss.__module__]
    for key in getattr(module, 'NEEDS', ()):
      errors.check_choice(f'part in NEEDS of {task.objective}', key,
                          model_config.ADDABLE)
      found[key] = (len(config.data.languages) if key == 'num_languages'
                    else True)
    if head := getattr(module, 'HEAD', None):
      parameters = inspect.signature(loss).parameters
      if len(head) != 2 or head[1] not in parameters:
        raise errors.UserError(
            f'HEAD of {task.objective} is {head!r}; allowed: a file of '
            'm3p_jax/model/heads/, and the option of `loss` that is its number')
      file, option = head
      heads.check(name, file)
      number = task.options.get(option, parameters[option].default)
      if type(number) is not int or number < 1:
        shown = ('missing' if number is inspect.Parameter.empty
                 else repr(number))
        raise errors.UserError(
            f'tasks.{name}.options.{option} is {shown}; allowed: 1 or more')
      found['heads'] = (*found.get('heads', ()), (
          name, file, number, streams.num_pictures(task) or 1))
  return found


def schedule_points(name: str, task: ConfigDict) -> list[tuple[float, float]]:
  """Returns the (step, factor) points of a task's weight, [] for none.

  Raises:
    UserError: `weight_schedule` is no list of them with rising steps.
  """
  text = task.weight_schedule
  try:
    points = []
    for point in filter(None, text.split(',')):
      step, factor = map(float, point.split(':'))
      points.append((step, factor))
    steps = [step for step, _ in points]
    if steps != sorted(set(steps)) or not all(
        math.isfinite(number) for point in points for number in point):
      raise ValueError
  except ValueError:
    raise errors.UserError(
        f'tasks.{name}.weight_schedule is {text!r}; allowed: step:factor with '
        "commas, the steps rising, as '0:0,1000:1'") from None
  return points


def takes_baseline(loss: Callable[..., Any]) -> bool:
  """Returns whether the loss measures a baseline from the frequencies."""
  return _BASELINE in inspect.signature(loss).parameters


def filled(name: str, loss: Callable[..., Any]) -> dict[str, Any]:
  """Returns what a loss is told of its task: its head is called as that."""
  return {_HEAD: name} if _HEAD in inspect.signature(loss).parameters else {}


def check_resumable(saved: Mapping[str, Any], config: ConfigDict,
                    workdir: paths.Path) -> None:
  """Raises UserError where the run of `saved` cannot go on with `config`."""
  # A key that is newer than the run had its default then.
  old = flatten(to_json(base.get_config())) | flatten({**saved, 'tasks': {
      name: _NEW_TASK_KEYS | task
      for name, task in saved.get('tasks', {}).items()}})
  for key in ('tasks', *_FORMER):
    old.pop(key, None)
  new = flatten(to_json(config))
  if isinstance(old[_NOW_LIST], str):
    old[_NOW_LIST] = [old[_NOW_LIST]]
  changed = [
      f'{key}: {old.get(key, "(absent)")!r} -> {new.get(key, "(absent)")!r}'
      for key in sorted(old | new) if old.get(key) != new.get(key)
      and not any(key == name or key.startswith(f'{name}.')
                  for name in RESUMABLE)]
  if changed:
    raise errors.UserError(
        f'{workdir} holds a run with another config and cannot go on with '
        f'this one: {"; ".join(changed)}. Take another --workdir, or change '
        f'these back; only {", ".join(RESUMABLE)} may change')


def _check_languages(config: ConfigDict) -> None:
  languages.check(config.data.languages)
  read = {f'data.{section}': config.data[section]
          for section in ('text', 'image_text')}
  read |= {f'tasks.{name}.data': streams.data_of(config.data, task)
           for name, task in config.tasks.items() if task.data}
  for where, data in read.items():
    for language in set(data.languages) - {languages.ALL}:
      errors.check_choice(f'language of {where}.languages', language,
                          config.data.languages)


def _check_least(name: str, value: float, least: int) -> None:
  if value < least:
    raise errors.UserError(f'{name} is {value}; allowed: {least} or more')
