"""What the recipes share: stages that are timed, resumed and skipped."""

from collections.abc import Callable, Mapping, Sequence
import gc
import hashlib
import json
import pathlib
import resource
import sys
import time
from typing import Any

import jax
import ml_collections

from input_pipeline import errors
from input_pipeline import fingerprint
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import output as output_lib
from m3p_jax import train
from m3p_jax.evaluation import results
from m3p_jax.evaluation import weights

# Where things lie and how often they are reported changes no result.
_NOT_IN_RESULTS = (
    'checkpoint_every_steps', 'data.data_dir', 'eval_batches',
    'eval_every_steps', 'evaluation', 'init_from', 'keep_checkpoints',
    'log_every_steps', 'mesh')


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what decides the weights that training gives, by dotted key.

  Args:
    config: a whole config as JSON holds it (lists, no tuples).
  """
  return {key: value for key, value in config_lib.flatten(config).items()
          if not any(key == name or key.startswith(f'{name}.')
                     for name in _NOT_IN_RESULTS)}


class Stages:
  """The numbered stages of one recipe, remembered in `timings.json`.

  A finished stage is skipped, one that was cut off goes on, and its seconds
  add up. Each is known by a fingerprint of its settings and of the stages
  before it, by what it was made from and by what it made, so that nothing
  stale is taken for done.
  """

  def __init__(self, workdir: pathlib.Path, total: int):
    """Args: `workdir` is made if absent; `total` stages will be announced."""
    self._total = total
    self._number = 0
    output_lib.check_writable(workdir, '--workdir')
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'timings.json'
    self.records: dict[str, dict[str, Any]] = {}
    if self._path.is_file():
      self.records = json.loads(self._path.read_text())

  def run(self, name: str, work: Callable[[], Any], *, title: str,
          settings: Any = None, inputs: Any = None, after: Sequence[str] = (),
          output: pathlib.Path | None = None,
          made: Callable[[], Any] = lambda: None,
          resumes: bool = False, always: bool = False) -> None:
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
      told = ('was made from other data or weights than those that are there '
              'now' if record.get('fingerprint') == key else
              f'was made with other settings{_differences(output, settings)}')
      raise errors.UserError(
          f'{output} {told}; take another --workdir, or delete {output} to run '
          'it again')
    if is_there and record.get('made') is not None:
      is_there = record['made'] == made()
    is_done = is_same and record['finished'] and not always
    if is_done and is_there:
      self._announce(f'{title}: done before ({_minutes(record["seconds"])})')
      return
    self._announce(title)
    if not is_same or record['finished']:
      record = {'fingerprint': key, 'inputs': inputs, 'seconds': 0.0}
    self.records[name] = record | {'finished': False}
    self._work(name, work, made)

  def _work(self, name: str, work: Callable[[], Any],
            made: Callable[[], Any]) -> None:
    record = self.records[name]
    start, before = time.monotonic(), record['seconds']
    results.write(self._path, self.records)
    try:
      work()
      record |= {'finished': True, 'made': made()}
    finally:
      record['seconds'] = round(before + time.monotonic() - start, 1)
      record['peak_memory_mb'] = peak_memory_mb()
      results.write(self._path, self.records)
    # The next stage compiles its own steps: the old ones only hold memory.
    jax.clear_caches()
    gc.collect()
    print(f'    took {_minutes(record["seconds"])}, memory so far at most '
          f'{record["peak_memory_mb"]:,} MB', file=sys.stderr, flush=True)

  def _fingerprint(self, settings: Any, after: Sequence[str]) -> str:
    content = [settings, [self.records[name]['fingerprint'] for name in after]]
    return hashlib.sha256(
        json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

  def _announce(self, text: str) -> None:
    print(f'[{self._number:2}/{self._total}] {text}', file=sys.stderr,
          flush=True)


def _differences(workdir: pathlib.Path, settings: Mapping[str, Any]) -> str:
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


def peak_memory_mb() -> int:
  """Returns the most memory that this process held so far, in 10^6 bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return round(peak * (1 if sys.platform == 'darwin' else 2 ** 10) / 1e6)


def run_training(recipe: Stages, name: str, config: ml_collections.ConfigDict,
                 workdir: pathlib.Path, *, title: str, after: Sequence[str],
                 inputs: Any = None) -> None:
  """Trains up to the last step, as one stage; goes on from what is there.

  Raises:
    UserError: the folder holds a run with other settings, or from other data
      or weights.
  """

  def work():
    train.train_and_evaluate(config, workdir)

  recipe.run(name, work, title=title, after=after, output=workdir,
             made=lambda: newest_weights(workdir), inputs=inputs,
             settings=settings_of(config_lib.to_json(config)), resumes=True)


def newest_weights(path: str | pathlib.Path) -> str | None:
  """Returns the fingerprint of a run's newest weights, None without any."""
  try:
    folder, is_one = checkpoint.locate(path)
  except errors.UserError:
    return None
  return weights.fingerprint_of(
      folder if is_one else folder / str(checkpoint.steps(folder)[-1]))
