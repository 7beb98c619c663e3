"""From packages to search, as a user goes, on a little real data."""

import json
import shutil

import numpy as np
import pytest

from configs import smoke
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import prepare
from m3p_jax import search
from m3p_jax import train
from m3p_jax.evaluation import retrieval


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


def _config(data_dir):
  config = smoke.get_config()
  config.data.data_dir = str(data_dir)
  return config


def _losses(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  found = {}
  for line in map(json.loads, lines):
    found.setdefault(line['step'], {}).update(
        {name: value for name, value in line.items() if '/' in name})
  return found


def test_train_resume_evaluate_search(data_dir, tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  train.train_and_evaluate(_config(data_dir), whole)
  losses = _losses(whole)
  tasks = set(smoke.get_config().tasks)
  assert {name.split('/')[0] for name in losses[8]} >= tasks
  assert all(np.isfinite(value) for entry in losses.values()
             for value in entry.values())

  # Code-switching, masking, mixing and dropout included, in mid-epoch.
  first = _config(data_dir)
  first.num_train_steps = 4
  train.train_and_evaluate(first, cut)
  train.train_and_evaluate(_config(data_dir), cut)
  resumed = _losses(cut)
  for step in (6, 8):
    trained = {name: value for name, value in losses[step].items()
               if not name.startswith('validation')}
    assert trained.items() <= resumed[step].items()

  config = _config(data_dir)
  retrieval.evaluate(config, whole)
  result = json.loads((whole / 'retrieval.json').read_text())
  cells = result['settings'][config.setting]['languages']
  assert set(cells) == {'en', 'de'}
  assert all(0 <= cell['mean_recall'] <= 100 for cell in cells.values())
  found = search.load(whole).search('ein roter Apfel', k=3)
  assert len(found) == 3
  assert found[0].score >= found[1].score >= found[2].score


def test_same_seed_gives_the_same_first_50_losses(data_dir, tmp_path):
  def run(name, seed):
    config = _config(data_dir)
    config.update(dict(seed=seed, num_train_steps=50, log_every_steps=1,
                       eval_batches=0, checkpoint_every_steps=50))
    train.train_and_evaluate(config, tmp_path / name)
    return _losses(tmp_path / name)

  first, again, other = (
      run(name, seed) for name, seed in (('a', 0), ('b', 0), ('c', 1)))
  assert len(first) == 50
  assert first == again
  assert first[50] != other[50]
