"""Several processes through main.py: they train, stop, score and wait as one.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from m3p_jax import config as config_lib
from m3p_jax import metrics
from m3p_jax import search
from tests import compiler
from tests import toy

ROOT = pathlib.Path(config_lib.__file__).parents[1]
_EVALUATE = ('--mode=evaluate', '--config.evaluation.dataset=packed',
             '--config.evaluation.split=train',
             '--config.evaluation.languages=en')


def _port() -> int:
  with contextlib.closing(socket.socket()) as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


@pytest.fixture(scope='module')
def start(python):
  """Returns a function that starts a process."""
  def start(workdir, *arguments, devices=1, **environment) -> subprocess.Popen:
    return subprocess.Popen(
        [python, 'main.py', f'--workdir={workdir}', *arguments],
        cwd=ROOT, env=compiler.environment(devices) | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

  return start


@pytest.fixture(scope='module')
def start_two(start):
  """Returns a function that starts two that belong together."""
  def start_two(workdir, *arguments) -> list[subprocess.Popen]:
    port = _port()
    return [start(workdir, *arguments, f'--coordinator=127.0.0.1:{port}',
                  '--num_processes=2', f'--process_id={number}', devices=2)
            for number in range(2)]

  return start_two


def ends(*processes: subprocess.Popen) -> list[str]:
  """Returns what the processes said; all end well."""
  said = [process.communicate(timeout=900)[0] for process in processes]
  for process, one in zip(processes, said, strict=True):
    assert process.returncode == 0, one
  return said


@pytest.fixture(scope='module')
def stopped(start_two, tmp_path_factory):
  """Returns a workdir that two processes left when one was asked to stop."""
  workdir = tmp_path_factory.mktemp('pod')
  config = toy.config(
      ('masked_lm', {'stream': 'text'}), ('matching', {'negatives': 'hard'}),
      ('contrastive', {}), num_train_steps=100_000, log_every_steps=1,
      checkpoint_every_steps=100_000, data__image_text__memory_bytes=0,
      mesh__data=-1)
  (workdir / 'config.json').write_text(json.dumps(config_lib.to_json(config)))
  pair = start_two(workdir)
  while not metrics.read(workdir / 'metrics.jsonl'):
    time.sleep(0.2)
    assert pair[0].poll() is None and pair[1].poll() is None, ends(*pair)
  pair[1].send_signal(signal.SIGTERM)
  first, second = ends(*pair)
  assert 'is saved in' in first and 'is saved in' in second
  return workdir


def test_one_process_goes_on_from_two(start, stopped, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(stopped, workdir)
  (saved,) = os.listdir(workdir / 'checkpoints')
  ends(start(workdir, f'--config.num_train_steps={int(saved) + 2}'))
  assert [line['step'] for line in metrics.read(workdir / 'metrics.jsonl')] == [
      *range(1, int(saved) + 3)]


def test_two_processes_score_what_one_scores(
    start, start_two, stopped, tmp_path):
  found = {}
  for name, run in (('one', lambda *a: [start(*a)]), ('two', start_two)):
    said = ends(*run(
        tmp_path / name, f'--config={stopped / "config.json"}', *_EVALUATE,
        '--config.evaluation.mode=joint', f'--config.init_from={stopped}'))
    assert sum('R@10' in one for one in said) == 1  # The first tells for all.
    assert (tmp_path / name / 'retrieval.json').exists()
    found[name] = [np.load(path) for path in sorted(
        (tmp_path / name / 'scores').rglob('piece_*.npy'))]
  # Not the ranks: the toy's pictures are alike, and rounding orders them.
  for one, two in zip(found['one'], found['two'], strict=True):
    np.testing.assert_allclose(two, one, atol=1e-5)


@pytest.mark.usefixtures('float32')
def test_slurm_is_recognised_and_two_make_the_index_of_one(
    start, stopped, tmp_path):
  # JAX takes the port from the job's number.
  job = str((_port() - 61_440) % 4_096)
  ends(*(start(stopped, '--mode=export', f'--out={tmp_path / "index"}',
               '--config.evaluation.dataset=packed', SLURM_JOB_ID=job,
               SLURM_STEP_NODELIST='localhost', SLURM_NTASKS='2',
               SLURM_PROCID=str(number), SLURM_LOCALID=str(number))
         for number in range(2)))
  alone = search.load(stopped / 'checkpoints', data_dir=toy.data_dir(),
                      dataset='packed').index
  np.testing.assert_allclose(np.load(tmp_path / 'index' / 'vectors.npy'),
                             alone.vectors_IE, atol=1e-5)


@pytest.mark.parametrize('number', [0, 1])
def test_one_of_two_alone_says_so(start, tmp_path, number):
  process = start(tmp_path, '--config=configs/smoke.py', '--wait_seconds=3',
                  f'--coordinator=127.0.0.1:{_port()}', '--num_processes=2',
                  f'--process_id={number}')
  said = process.communicate(timeout=60)[0]
  assert process.returncode == 2
  assert 'error: the other processes of this run did not come' in said
  assert 'Traceback' not in said


def test_a_run_meant_for_a_tpu_does_not_train_on_a_cpu(start, tmp_path):
  process = start(tmp_path, '--config=configs/smoke.py',
                  '--config.require=tpu')
  said = process.communicate(timeout=60)[0]
  assert process.returncode == 2
  assert "error: config.require is 'tpu', but JAX finds none" in said
  assert not (tmp_path / 'config.json').exists()
