"""Checkpoints: everything comes back, and damage costs one save, not all."""

import dataclasses
import json
import resource
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import errors
from m3p_jax import checkpoint
from m3p_jax import optimizer
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import train_step
from tests import compiler
from tests import models

# What Orbax leaves behind where a file is broken.
pytestmark = pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnraisableExceptionWarning',
    'ignore::ResourceWarning')

FACTORS = ((r'^tokens/', 0.0),)
# A short word table: these tests write it to disk several times.
CONFIG = dataclasses.replace(models.TINY, vocab_size=500)
MANIFEST = {'languages': ['en', 'de'], 'tokenizer': {'sha256': 'ab'}}


def make_state(data=1, fsdp=1, model=1, *, average_decay=0.0):
  tx = optimizer.make_optimizer(
      lambda count: 1e-2, b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.0,
      clip_norm=0.0, rate_factors=FACTORS, average_decay=average_decay)
  abstract, _ = startup.abstract_state(
      CONFIG, mesh=sharding.make_mesh(
          data, fsdp, model, jax.devices()[:data * fsdp * model]), tx=tx,
      rate_factors=FACTORS)
  rng = np.random.default_rng(0)
  state = jax.tree.map(
      lambda x: jax.device_put(
          rng.normal(size=x.shape).astype(x.dtype), x.sharding), abstract)
  return abstract, state


def make_iterator():
  options = tf.data.Options()
  options.experimental_symbolic_checkpoint = True
  return iter(tf.data.Dataset.range(100).shuffle(10, seed=0).repeat()
              .with_options(options))


def save(folder, *steps, keep=3):
  """Saves at these steps, one element apart; returns what comes next."""
  _, state = make_state()
  iterator = make_iterator()
  checkpointer = checkpoint.Checkpointer(folder, keep=keep)
  for step in steps:
    next(iterator)
    checkpointer.save(state.replace(step=jnp.int32(step)), iterator,
                      config=CONFIG, manifest=MANIFEST)
  checkpointer.close()
  return state, int(next(iterator))


def damage(path):
  """Cuts the files of a checkpoint's parameters in half."""
  for file in (path / 'params').rglob('*'):
    if file.is_file() and file.stat().st_size > 1000:
      file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


def test_state_and_iterator_come_back(tmp_path):
  state, following = save(tmp_path, 2, 4)
  abstract, _ = make_state()
  iterator = make_iterator()
  restored = checkpoint.Checkpointer(tmp_path).restore(abstract, iterator)
  assert restored.step == 4
  assert int(next(iterator)) == following
  assert isinstance(restored, train_step.TrainState)
  for name in ('params', 'frozen', 'opt_state'):
    jax.tree.map(np.testing.assert_array_equal,
                 getattr(restored, name), getattr(state, name))


def test_average_is_what_a_checkpoint_holds_and_both_come_back(tmp_path):
  abstract, state = make_state(average_decay=0.9)
  iterator = make_iterator()
  checkpointer = checkpoint.Checkpointer(tmp_path)
  checkpointer.save(state.replace(step=jnp.int32(1)), iterator,
                    config=CONFIG, manifest=MANIFEST)
  checkpointer.close()
  average = state.opt_state[-1].average
  loaded = checkpoint.load(tmp_path)[0]
  np.testing.assert_array_equal(
      loaded['pooler']['kernel'], average['pooler']['kernel'])
  # What is frozen has no average, and is there.
  np.testing.assert_array_equal(
      loaded['tokens']['embedding'], state.frozen['tokens']['embedding'])
  restored = checkpoint.Checkpointer(tmp_path).restore(abstract, iterator)
  for name in ('params', 'frozen', 'opt_state'):
    jax.tree.map(np.testing.assert_array_equal,
                 getattr(restored, name), getattr(state, name))


def test_newest_are_kept_with_geometry_and_manifest(tmp_path):
  save(tmp_path, 1, 2, 3, keep=2)
  assert checkpoint.steps(tmp_path) == [2, 3]
  assert type(CONFIG)(**json.loads(
      (tmp_path / '3' / 'config.json').read_text())) == CONFIG
  assert json.loads((tmp_path / '3' / 'manifest.json').read_text()) == MANIFEST


def test_geometry_of_version_1_is_read_without_its_runs_options(tmp_path):
  save(tmp_path, 1)
  path = tmp_path / '1' / 'config.json'
  content = json.loads(path.read_text())
  assert not {'dtype', 'remat', 'dropout', 'attention_dropout'} & set(content)
  path.write_text(json.dumps(content | {
      'dropout': 0.1, 'attention_dropout': 0.1, 'dtype': 'auto',
      'remat': 'lean', 'platform': 'auto'}))
  assert checkpoint.load(tmp_path)[1] == CONFIG
  path.write_text(json.dumps(content | {'depth': 2}))
  with pytest.raises(errors.UserError, match=r'damaged checkpoint: .*depth'):
    checkpoint.load(tmp_path)


def test_load_takes_a_checkpoint_a_folder_of_them_or_a_workdir(tmp_path):
  state, _ = save(tmp_path / 'checkpoints', 1, 2)
  for path in (tmp_path, tmp_path / 'checkpoints',
               tmp_path / 'checkpoints' / '1'):
    params, config, manifest = checkpoint.load(path)
    assert config == CONFIG
    assert manifest == MANIFEST
    jax.tree.map(np.testing.assert_array_equal, params, state.all_params())
  assert checkpoint.peek(tmp_path) == (CONFIG, MANIFEST)


def test_damaged_newest_gives_way_to_the_one_before(tmp_path, caplog):
  _, _ = save(tmp_path, 1, 2, 3)
  damage(tmp_path / '3')
  checkpoint.load(tmp_path)
  assert f'{tmp_path / "3"} is damaged' in caplog.text
  abstract, _ = make_state()
  iterator = make_iterator()
  checkpointer = checkpoint.Checkpointer(tmp_path)
  restored = checkpointer.restore(abstract, iterator)
  assert restored.step == 2
  assert (tmp_path / 'damaged_3').is_dir()
  # The step of the damaged one can be saved again.
  checkpointer.save(restored.replace(step=jnp.int32(3)), iterator,
                    config=CONFIG, manifest=MANIFEST)
  checkpointer.close()
  assert checkpoint.steps(tmp_path) == [1, 2, 3]


def test_nothing_good_or_nothing_there_is_told(tmp_path):
  with pytest.raises(errors.UserError, match='no checkpoint here'):
    checkpoint.load(tmp_path)
  abstract, _ = make_state()
  assert checkpoint.Checkpointer(tmp_path).restore(
      abstract, make_iterator()) is None
  save(tmp_path, 1, 2)
  damage(tmp_path / '1')
  damage(tmp_path / '2')
  with pytest.raises(errors.UserError, match='none of its checkpoints'):
    checkpoint.load(tmp_path)
  with pytest.raises(errors.UserError, match='damaged checkpoint'):
    checkpoint.load(tmp_path / '1')


def test_weights_alone_can_be_loaded_but_not_resumed(tmp_path):
  abstract, state = make_state()
  checkpointer = checkpoint.Checkpointer(tmp_path)
  checkpointer.save(state.replace(step=jnp.int32(5)), None, config=CONFIG,
                    manifest=MANIFEST)
  checkpointer.close()
  params, _, _ = checkpoint.load(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, params, state.all_params())
  with pytest.raises(errors.UserError, match='weights alone'):
    checkpoint.Checkpointer(tmp_path).restore(abstract, make_iterator())


def test_best_is_kept_beside_the_newest(tmp_path):
  _, state = make_state()
  iterator = make_iterator()
  checkpointer = checkpoint.Checkpointer(tmp_path, keep=1)
  for step, loss in ((1, 3.0), (2, 1.0), (3, None), (4, 2.0)):
    checkpointer.save(
        state.replace(step=jnp.int32(step)), iterator, config=CONFIG,
        manifest=MANIFEST, loss=loss)
    checkpointer.wait()
  checkpointer.close()
  assert checkpoint.steps(tmp_path) == [2, 4]
  assert checkpointer.is_best(0.5)
  assert not checkpointer.is_best(1.0)
  # A resumed run reads it from the disk. What is not the best any more goes
  # when the next one is saved.
  checkpointer = checkpoint.Checkpointer(tmp_path, keep=1)
  for step, loss in ((5, 0.5), (6, None)):
    checkpointer.save(
        state.replace(step=jnp.int32(step)), iterator, config=CONFIG,
        manifest=MANIFEST, loss=loss)
    checkpointer.wait()
  checkpointer.close()
  assert checkpoint.steps(tmp_path) == [5, 6]


def test_full_disk_is_named_and_the_older_checkpoint_is_whole(tmp_path):
  save(tmp_path, 1)
  # A process may write no file longer than this: what a full disk does,
  # without a file system to mount.
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
  try:
    with pytest.raises(errors.UserError) as error:
      save(tmp_path, 2)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert str(error.value).startswith(f'{tmp_path}: the disk is full')
  assert 'steps 1 are whole' in str(error.value)
  assert checkpoint.steps(tmp_path) == [1]
  checkpoint.load(tmp_path)


def test_restores_onto_another_number_of_devices(python, tmp_path):
  save(tmp_path, 3)
  program = """
import pathlib, sys
from tests import test_checkpoint as t
abstract, _ = t.make_state(2, 2, 2)
state = t.checkpoint.Checkpointer(pathlib.Path(sys.argv[1])).restore(
    abstract, t.make_iterator())
kernel = state.params['encoder']['mlp']['inner']['kernel']
print(int(state.step), kernel.shape, kernel.addressable_shards[0].data.shape,
      float(abs(kernel).sum()))
"""
  result = subprocess.run(
      [python, '-c', program, str(tmp_path)], capture_output=True,
      text=True, check=False, env=compiler.environment(8))
  kernel = make_state()[1].params['encoder']['mlp']['inner']['kernel']
  layers, embed, mlp = kernel.shape
  told = result.stdout.strip().split(') ')
  assert told[0] == f'3 {kernel.shape}'[:-1], result.stderr[-2000:]
  assert told[1] == f'({layers}, {embed // 2}, {mlp // 2}'
  np.testing.assert_allclose(float(told[2]), float(abs(kernel).sum()),
                             rtol=1e-6)
