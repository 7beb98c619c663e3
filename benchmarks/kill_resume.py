"""Kills a training run at random moments until it is done; is it the same run?

python -m benchmarks.kill_resume --workdir=DIR --data_dir=DIR
  [--config=configs/quickstart.py:pretrain] [--kills=20] [--seed=0]
  [--undisturbed=WORKDIR] [--life=SECONDS]
  [--config.KEY=VALUE ...]

Trains once undisturbed (or takes such a run that is there), then again with
`kill -9` after random times (seeded), and compares the final parameters bit for
bit. Every second life counts from its first save, so that the run gets on and
kills fall into starting, training and saving alike. Exit status 1 where the
parameters differ.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np

from m3p_jax import checkpoint


def start(arguments, workdir: pathlib.Path) -> subprocess.Popen:
  """Returns the training process of a workdir."""
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / 'log').open('a') as log:
    return subprocess.Popen(
        [sys.executable, 'main.py', f'--config={arguments.config}',
         f'--workdir={workdir}',
         f'--config.data.data_dir={arguments.data_dir}', *arguments.flags],
        stderr=log, stdout=log)


def finish(process: subprocess.Popen, workdir: pathlib.Path) -> None:
  """Waits for a process that nobody kills.

  Raises:
    RuntimeError: it failed.
  """
  if process.wait():
    raise RuntimeError(f'training failed; see {workdir / "log"}')


def duration(workdir: pathlib.Path) -> float:
  """Returns the seconds from a run's start to its last checkpoint."""
  steps = checkpoint.steps(workdir / 'checkpoints')
  last = workdir / 'checkpoints' / str(steps[-1])
  return last.stat().st_mtime - (workdir / 'config.json').stat().st_mtime


def killed(arguments, workdir: pathlib.Path, seconds: float) -> list[dict]:
  """Runs to the end through the kills; returns what each of them met.

  Args:
    arguments: of the command line.
    workdir: of the run.
    seconds: between two kills, on average.
  """
  draw, met = random.Random(arguments.seed), []
  folder = workdir / 'checkpoints'
  while len(met) < arguments.kills:
    wait = draw.uniform(0, 2) * seconds
    before = drafts(folder)
    process, begin = start(arguments, workdir), time.monotonic()
    if len(met) % 2 == 0:
      wait_for_save(process, folder)
      wait /= 10
    try:
      process.wait(timeout=wait)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
    else:
      if process.returncode:
        raise RuntimeError(f'training failed; see {workdir / "log"}')
      # Done before its time: the kills that are left start it anew, from the
      # checkpoint before the last.
      steps = checkpoint.steps(folder)
      if len(steps) < 2:
        raise RuntimeError(
            'the run ended before it was killed often enough; set '
            '--config.checkpoint_every_steps lower and keep_checkpoints to 2')
      _drop(folder / str(steps[-1]))
      continue
    is_saving = bool(drafts(folder) - before)
    met.append({'seconds': round(time.monotonic() - begin, 1),
                'saving': is_saving,
                'newest': max(checkpoint.steps(folder), default=0)})
    print(f'kill {len(met)} after {met[-1]["seconds"]} s: checkpoint of step '
          f'{met[-1]["newest"]}{", while saving" if is_saving else ""}',
          file=sys.stderr)
  finish(start(arguments, workdir), workdir)
  return met


def wait_for_save(process: subprocess.Popen, folder: pathlib.Path) -> None:
  """Returns when the process has begun to save, or has ended."""
  before = drafts(folder)
  while process.poll() is None and not drafts(folder) - before:
    time.sleep(0.1)


def drafts(folder: pathlib.Path) -> set[str]:
  """Returns the names of checkpoints that are being written, or were."""
  return {path.name for path in folder.glob('*orbax-checkpoint-tmp*')}


def _drop(path: pathlib.Path) -> None:
  path.rename(path.parent / f'dropped_{path.name}_{time.time_ns()}')


def main() -> int:
  """Returns the exit status: 0 = the same bits."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', required=True)
  parser.add_argument('--config', default='configs/quickstart.py:pretrain')
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--undisturbed', type=pathlib.Path)
  parser.add_argument('--life', type=float, help='seconds between two kills, '
                      'on average; by default a tenth of the whole run')
  arguments, arguments.flags = parser.parse_known_args()
  if arguments.workdir.exists():
    parser.error(f'{arguments.workdir} is there; take another --workdir')
  whole, cut = arguments.workdir / 'whole', arguments.workdir / 'killed'
  if arguments.undisturbed:
    whole = arguments.undisturbed
  else:
    finish(start(arguments, whole), whole)
  seconds = duration(whole)
  met = killed(arguments, cut, arguments.life or seconds / 10)
  final = [checkpoint.load(workdir)[0] for workdir in (whole, cut)]
  same = jax.tree.map(np.array_equal, *final)
  different = [jax.tree_util.keystr(path) for path, equal
               in jax.tree_util.tree_leaves_with_path(same) if not equal]
  print(json.dumps({
      'kills': len(met), 'while_saving': sum(kill['saving'] for kill in met),
      'undisturbed_seconds': round(seconds, 1), 'kills_met': met,
      'identical': not different, 'different': different}, indent=2))
  return int(bool(different))


if __name__ == '__main__':
  sys.exit(main())
