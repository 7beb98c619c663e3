"""Data, workdir and weights in a bucket: real clients against an emulator."""

import ast
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import metrics
from m3p_jax import output
from m3p_jax import search
from m3p_jax import train
from m3p_jax.convert import exporting
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import weights
from m3p_jax.search import exported
from tests import compiler
from tests import gcs_emulator
from tests import toy

ROOT = pathlib.Path(config_lib.__file__).parents[1]
BUCKET = f'gs://{gcs_emulator.BUCKET}'
# What works on a disk alone, and refuses URLs or is given none.
LOCAL = ('base_builder', 'beam', 'builder', 'check', 'command_line', 'console',
         'copies', 'exported', 'extracted', 'index', 'known', 'output',
         'paths', 'photos', 'prepare', 'readers', 'shards', 'sources',
         'summary', 'tokenizer')


def test_a_run_lives_in_a_bucket(tmp_path):
  with gcs_emulator.run(tmp_path) as (settings, asked):
    environment = compiler.environment(1) | settings | {'PYTHONPATH': ROOT}
    for arguments in (
        ['-m', 'tests.test_storage', 'train', toy.data_dir()],
        # The config is found in the bucket as well.
        [ROOT / 'main.py', f'--workdir={BUCKET}/run',
         '--config.num_train_steps=4'],
        ['-m', 'tests.test_storage', 'use', tmp_path]):
      subprocess.run([sys.executable, *map(str, arguments)], cwd=tmp_path,
                     env=environment, check=True)
  assert not list(tmp_path.glob('gs:*'))
  # A record is read alone: TensorFlow's default asks for 64 MiB each time.
  assert asked and max(asked) < 64 * 2**20


def _train(data_dir: str) -> None:
  for name in ('sentences', 'pairs', 'english', 'packed', 'dictionaries'):
    paths.copy_tree(pathlib.Path(data_dir, name),
                    paths.of(BUCKET) / 'data' / name)
  config = toy.config(
      ('masked_lm', {'stream': 'text'}), ('matching', {}),
      data__image_text__code_switch__rate=0.5,
      data__image_text__memory_bytes=0, data__data_dir=f'{BUCKET}/data')
  train.train_and_evaluate(config, f'{BUCKET}/run')


def _use(folder: str) -> None:
  """Evaluates, exports and searches what lies in the bucket."""
  run, disk = paths.of(BUCKET) / 'run', pathlib.Path(folder, 'copy')
  lines = metrics.read(run / 'metrics.jsonl')
  assert [line['step'] for line in lines] == [1, 2, 3, 4]
  assert checkpoint.steps(run / 'checkpoints') == [2, 4]
  # What is not finished does not count.
  (run / 'checkpoints' / '4' / 'commit_success.txt').rename(
      run / 'checkpoints' / '4' / 'commit')
  assert checkpoint.steps(run / 'checkpoints') == [2]
  (run / 'checkpoints' / '4' / 'commit').rename(
      run / 'checkpoints' / '4' / 'commit_success.txt')
  paths.copy_tree(run / 'checkpoints' / '4', disk)
  assert weights.fingerprint_of(disk) == weights.fingerprint_of(
      run / 'checkpoints' / '4')

  config = config_lib.get_config(str(run / 'config.json'))
  config.evaluation.update(dict(
      mode='joint', dataset='packed', split='train', languages=('en',)))
  entry = retrieval.evaluate(config, run)
  assert entry['checkpoint'] == f'{BUCKET}/run/checkpoints/4'
  assert (run / 'report.html').exists()
  there = exported.export(search.load(run, config=config), f'{BUCKET}/index')
  assert there['num_pictures'] == 28
  index = search.load(f'{BUCKET}/index').index
  assert len(index.image_ids) == 28
  np.testing.assert_allclose(
      np.linalg.norm(index.vectors_IE, axis=1), 1, rtol=1e-5)
  with output.draft(f'{BUCKET}/weights', overwrite=False) as path:
    exporting.write('safetensors', exporting.load(run), path)
  assert sorted(path.name for path in paths.of(f'{BUCKET}/weights').iterdir()
                ) == ['config.json', 'manifest.json', 'model.safetensors']


def test_other_schemes_are_refused_by_name():
  with pytest.raises(errors.UserError, match='s3:// cannot.*gs://BUCKET'):
    paths.of('s3://bucket/run')
  with pytest.raises(errors.UserError, match='--out=gs://b/x: this needs a lo'):
    paths.local('gs://b/x', '--out')
  with pytest.raises(errors.UserError, match='s3:// cannot'):
    train.train_and_evaluate(toy.config(data__data_dir='s3://b/x'), '/tmp')


def test_nothing_makes_a_local_path_of_what_may_be_a_url():
  for path in (*ROOT.glob('m3p_jax/**/*.py'), *ROOT.glob('input_pipeline/*.py'),
               *ROOT.glob('input_pipeline/dictionaries/*.py')):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and (
          ast.unparse(node.func) == 'pathlib.Path'):
        argument = ast.unparse(node.args[0]) if node.args else ''
        assert path.stem in LOCAL or argument[0] in "_'", (path, argument)


if __name__ == '__main__':
  {'train': _train, 'use': _use}[sys.argv[1]](sys.argv[2])
