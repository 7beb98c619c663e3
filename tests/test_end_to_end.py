"""From packages to search, as a user goes, on a little real data."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs import smoke
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import prepare
from m3p_jax import search
from m3p_jax import train
from m3p_jax.evaluation import retrieval

_STEPS = 20


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Returns a folder with a few real pictures, sentences and translations."""
  folder = tmp_path_factory.mktemp('data')
  try:
    prepare.prepare('tux_paint', str(folder), limit=60,
                    languages=smoke.LANGUAGES)
    prepare.prepare('udhr', str(folder), languages=smoke.LANGUAGES)
    dictionaries.build(('fr',), str(folder))
  except errors.UserError as error:
    if not shutil.which('apt-get'):
      pytest.skip(f'needs apt: {error}')
    raise
  return folder


def _train(data_dir, workdir, *, num_steps=_STEPS, **changes):
  config = smoke.get_config()
  config.data.data_dir = str(data_dir)
  config.update(dict(
      num_train_steps=num_steps, log_every_steps=1, eval_batches=0,
      checkpoint_every_steps=_STEPS) | changes)
  train.train_and_evaluate(config, workdir)
  return config


@pytest.fixture(scope='module')
def whole(data_dir, tmp_path_factory):
  """Returns the workdir of a run without interruption, and its config."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, _train(data_dir, workdir, eval_batches=1)


def _losses(workdir):
  """Returns {step: {metric: value}} of training, and of validation."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  trained, validated = {}, {}
  for line in map(json.loads, lines):
    for name, value in line.items():
      if '/' in name:
        found = validated if name.startswith('validation/') else trained
        found.setdefault(line['step'], {})[name] = value
  return trained, validated


def test_losses_are_finite_and_every_task_has_one(whole):
  trained, validated = _losses(whole[0])
  assert list(trained) == list(range(1, _STEPS + 1))
  assert list(validated) == [0, _STEPS]
  tasks = set(smoke.get_config().tasks)
  assert {name.split('/')[0] for name in trained[_STEPS]} >= tasks
  assert {name.split('/')[1] for name in validated[_STEPS]} == tasks
  assert all(np.isfinite(value) for found in (trained, validated)
             for entry in found.values() for value in entry.values())


def test_same_seed_gives_the_same_losses_with_a_restart_between(
    data_dir, whole, tmp_path):
  # Code-switching, masking, mixing and dropout included, in mid-epoch.
  _train(data_dir, tmp_path, num_steps=4)
  _train(data_dir, tmp_path)
  assert _losses(tmp_path)[0] == _losses(whole[0])[0]


def test_records_give_the_losses_of_memory(data_dir, whole, tmp_path):
  subprocess.run(
      [sys.executable, 'main.py', '--config=configs/smoke.py',
       f'--workdir={tmp_path}', f'--config.data.data_dir={data_dir}',
       '--config.data.image_text.memory_bytes=0',
       f'--config.num_train_steps={_STEPS}', '--config.log_every_steps=1',
       f'--config.checkpoint_every_steps={_STEPS}'],
      check=True, cwd=pathlib.Path(train.__file__).parents[1])
  assert _losses(tmp_path) == _losses(whole[0])


def test_evaluate_and_search(whole):
  workdir, config = whole
  retrieval.evaluate(config, workdir)
  result = json.loads((workdir / 'retrieval.json').read_text())
  cells = result['settings'][config.setting]['languages']
  assert set(cells) == {'en', 'de'}
  assert all(0 <= cell['mean_recall'] <= 100 for cell in cells.values())
  found = search.load(workdir).search('ein roter Apfel', k=3)
  assert len(found) == 3
  assert found[0].score >= found[1].score >= found[2].score
