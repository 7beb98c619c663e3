"""What the recipes share: their command line, and stages that are remembered.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import gc
import hashlib
import json
import re
import resource
import sys
import time
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax
import ml_collections
from ml_collections import config_flags

from configs import base
from input_pipeline import console
from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import paths
from input_pipeline import prepare
from m3p_jax import checkpoint
from m3p_jax import command_line
from m3p_jax import config as config_lib
from m3p_jax import output as output_lib
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import train
from m3p_jax.evaluation import results
from m3p_jax.evaluation import weights

# Where things lie and how often they are reported changes no result.
_NOT_IN_RESULTS = (
    'checkpoint_every_steps', 'data.data_dir', 'eval_batches',
    'eval_every_steps', 'evaluation', 'init_from', 'keep_checkpoints',
    'log_every_steps', 'mesh', 'require')
# Keys that are younger than workdirs which recipes go on with, as these were
# then; and of tasks, those that were not there.
_YOUNGER = {'model.heads': [], 'model.region_dropout': 0.0,
            'data.image_text.train_split': 'train',
            'data.image_text.sources': ['en'], 'generate.source': '',
            'generate.use_picture': True}
_YOUNGER_OF_TASKS = re.compile(r'tasks\.\w+\.(data|noise)')


class Options(NamedTuple):
  """The flags of every recipe.

  Attributes:
    workdir: folder of the results.
    data_dir: folder of prepared datasets and dictionaries.
    limit: most pictures of a dataset; 0 = all.
    overrides: config values of every stage, by dotted key.
  """
  workdir: paths.Path
  data_dir: paths.Path
  limit: int
  overrides: dict[str, Any]


def run_recipe(recipe: Callable[[Options], None], *,
               workdir: str = 'runs/quickstart') -> None:
  """Parses the flags and runs a recipe; a user's mistake is one line."""

  def main(argv: Sequence[str]) -> None:
    console.check_flags(argv, ())
    console.show_own_logs()
    startup.use_compilation_cache()
    values = flags.FLAGS
    command_line.connect(values['config'].value.require)
    try:
      recipe(Options(
          paths.of(values.workdir).absolute(),
          paths.of(values.data_dir).absolute(), values.limit,
          config_flags.get_override_values(values['config'])))
    except KeyboardInterrupt:
      print('\nstopped; the same command goes on from here', file=sys.stderr)
      sys.exit(130)

  app.run(console.one_line(main),
          flags_parser=console.one_line(
              functools.partial(_parse, workdir=workdir)))


def _parse(argv: list[str], *, workdir: str) -> list[str]:
  flags.DEFINE_string(
      'workdir', workdir, 'Folder of the results; a run found there goes on.')
  flags.DEFINE_string(
      'data_dir', 'data', 'Folder of prepared datasets and dictionaries.')
  flags.DEFINE_integer(
      'limit', 0, 'Most pictures of a dataset; 0 = all.', lower_bound=0)
  command_line.define_host_flags()
  for name in ('workdir', 'data_dir', 'limit'):
    # So that --help shows them: it is the recipe's, not this module's.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
  try:
    config_flags.DEFINE_config_dict(
        'config', base.get_config(), 'Values for every stage, in place of '
        'those of the recipe: --config.KEY=VALUE')
    return console.parse_flags(argv)
  except (AttributeError, KeyError) as error:
    # config_flags' answer to an override of a key that is not there.
    for argument in argv:
      key = argument.removeprefix('--config.').partition('=')[0]
      if key != argument and key not in config_lib.known_keys():
        raise errors.UserError(
            f'{argument}: {config_lib.unknown_key(key)}') from error
    raise


class Stages:
  """The numbered stages of one recipe, remembered in `timings.json`.

  A finished stage is skipped, one that was cut off goes on, and its seconds
  add up. Each is known by a fingerprint of its settings and of the stages
  before it, by what it was made from and by what it made, so that nothing
  stale counts as done.
  """

  def __init__(self, workdir: paths.Path, total: int):
    """Makes `workdir`; `total` stages will be announced."""
    self._total, self._number = total, 0
    output_lib.check_writable(workdir, '--workdir')
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'timings.json'
    self.records: dict[str, dict[str, Any]] = results.read(self._path)

  def run(self, name: str, work: Callable[[], Any], *, title: str,
          settings: Any = None, inputs: Any = None, after: Sequence[str] = (),
          output: paths.Path | None = None,
          made: Callable[[], Any] = lambda: None,
          resumes: bool = False, always: bool = False,
          by_first: bool = False) -> None:
    """Does one stage, unless it is done.

    Args:
      name: of the stage, unique in the recipe.
      work: does it; may be called again after it was cut off.
      title: what happens, for the announcement.
      settings: JSON; a stage with other settings is another stage.
      inputs: JSON; fingerprints of what is read beside the stages before.
      after: names of the stages whose results this one reads.
      output: file or folder; the stage is not done while it is absent.
      made: returns JSON that tells this output from another one there.
      resumes: what lies in `output` took long: it is gone on from, and never
        replaced where the settings are others.
      always: do it again even if it is done.
      by_first: of several processes the first works, and the others wait.

    Raises:
      UserError: `resumes`, and `output` was made with other settings, or from
        other inputs.
    """
    self._number += 1
    record = self.records.get(name, {})
    key = self._fingerprint(settings, after)
    inputs = fingerprint.of(
        [inputs, *(self.records[one].get('made') for one in after)])
    is_there = output is None or output.exists()
    # Records of version 1 have neither inputs nor what was made.
    is_same = (record.get('fingerprint') == key
               and record.get('inputs', inputs) == inputs)
    if resumes and is_there and not is_same:
      reason = ('was made from other data or weights than those that are there '
                'now' if record.get('fingerprint') == key else
                f'was made with other settings{_differences(output, settings)}')
      raise errors.UserError(
          f'{output} {reason}; take another --workdir, or delete {output} to '
          'run it again')
    if is_there and record.get('made') is not None:
      is_there = record['made'] == made()
    if is_same and record['finished'] and is_there and not always:
      self._announce(f'{title}: done before ({_minutes(record["seconds"])})')
      return
    self._announce(title)
    sharding.wait_for_all(name)  # All have looked what is done.
    if not is_same or record['finished']:
      record = {'fingerprint': key, 'inputs': inputs, 'seconds': 0.0}
    self.records[name] = record | {'finished': False}
    self._work(name, work if sharding.is_first() or not by_first
               else lambda: None, made)

  def _work(self, name: str, work: Callable[[], Any],
            made: Callable[[], Any]) -> None:
    record = self.records[name]
    begin, before = time.monotonic(), record['seconds']
    results.write(self._path, self.records)
    try:
      work()
      sharding.wait_for_all(name)
      record |= {'finished': True, 'made': made()}
    finally:
      record['seconds'] = round(before + time.monotonic() - begin, 1)
      record['peak_memory_mb'] = _peak_memory_mb()
      results.write(self._path, self.records)
    # The next stage compiles its own steps: the old ones only hold memory.
    jax.clear_caches()
    gc.collect()
    if not sharding.is_first():
      return
    print(f'    took {_minutes(record["seconds"])}, memory so far at most '
          f'{record["peak_memory_mb"]:,} MB', file=sys.stderr, flush=True)

  def _fingerprint(self, settings: Any, after: Sequence[str]) -> str:
    content = [settings, [self.records[name]['fingerprint'] for name in after]]
    return hashlib.sha256(
        json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

  def _announce(self, text: str) -> None:
    if sharding.is_first():
      print(f'[{self._number:2}/{self._total}] {text}', file=sys.stderr,
            flush=True)


def run_prepare(recipe: Stages, dataset: str, data_dir: paths.Path, *,
                after: Sequence[str] = (), **options: Any) -> None:
  """Prepares a dataset as one stage; `options` as of `prepare.prepare`."""
  recipe.run(
      f'prepare_{dataset}',
      lambda: prepare.prepare(dataset, str(data_dir), **options),
      title=f'prepare {dataset}', settings=options, after=after,
      inputs=prepare.key_of(dataset, data_dir, **options),
      output=data_dir / dataset, by_first=True,
      made=lambda: prepare.read_key(data_dir / dataset))


def run_training(recipe: Stages, name: str, config: ml_collections.ConfigDict,
                 workdir: paths.Path, *, title: str, after: Sequence[str],
                 inputs: Any = None) -> None:
  """Trains up to the last step, as one stage; goes on from what is there.

  Raises:
    UserError: the folder holds a run with other settings, or from other data
      or weights.
  """
  recipe.run(name, lambda: train.train_and_evaluate(config, workdir),
             title=title, after=after, output=workdir,
             made=lambda: newest_weights(workdir), inputs=inputs,
             settings=settings_of(config_lib.to_json(config)), resumes=True)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what of a config's JSON decides the weights, by dotted key."""
  return {key: value for key, value in config_lib.flatten(config).items()
          if not any(key == name or key.startswith(f'{name}.')
                     for name in _NOT_IN_RESULTS)
          and _YOUNGER.get(key, ...) != value
          and not (_YOUNGER_OF_TASKS.fullmatch(key) and value == {})}


def newest_weights(path: str | paths.Path) -> str | None:
  """Returns the fingerprint of a run's newest weights, None without any."""
  try:
    newest = checkpoint.find(path)[0]
  except errors.UserError:
    return None
  return weights.fingerprint_of(newest)


def _peak_memory_mb() -> int:
  """Returns the most memory that this process held so far, in 10^6 bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return round(peak * (1 if sys.platform == 'darwin' else 2 ** 10) / 1e6)


def _differences(workdir: paths.Path, settings: Mapping[str, Any]) -> str:
  """Returns how a training run's config differs from what is asked now."""
  path = workdir / 'config.json'
  if not path.is_file():
    return ''
  saved = settings_of(json.loads(path.read_text()))
  changed = [f'{key} {saved[key]!r}, now {settings[key]!r}'
             for key in sorted(saved.keys() & settings.keys())
             if saved[key] != settings[key]]
  return f' ({"; ".join(changed)})' if changed else ' in a stage before it'


def _minutes(seconds: float) -> str:
  """Returns '3 min 5 s' for 185."""
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest} s' if minutes else f'{rest} s'
