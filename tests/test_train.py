"""The loop: same seeds, resuming, stopping, and what it refuses."""

import dataclasses
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import tensorflow as tf

from configs import base
from input_pipeline import errors
from input_pipeline import pipeline
from m3p_jax import batch as batch_lib
from m3p_jax import checkpoint
from m3p_jax import metrics
from m3p_jax import sharding
from m3p_jax import train
from tests import models

# Held by the run's speed alone.
TIMES = ('examples_per_second', 'step_seconds', 'read_seconds')


class Rows:
  """Rows that depend on seed and step as those of `pipeline.Streams` do."""

  def __init__(self, *unused, split, **options):
    del unused, options
    self._first_seed = 7 if split == 'validation' else 0

  def dataset(self, task_configs, *, seed, steps=None, **unused):
    del unused
    length = 8

    def make(step):
      batches = {}
      for index, (name, task) in enumerate(sorted(task_configs.items())):
        draw = tf.random.stateless_uniform(
            (task.batch_size, length),
            tf.stack([step + 1000 * (seed + self._first_seed), index]),
            1000, 200_000, tf.int32)
        ids_BL = tf.concat([0 * draw[:, :1], draw[:, 1:]], axis=1)
        batches[name] = batch_lib.Batch(
            ids_BL, tf.ones_like(ids_BL, tf.bool), 0 * ids_BL[:, 0])
      return batches

    options = tf.data.Options()
    options.experimental_symbolic_checkpoint = True
    numbers = (tf.data.Dataset.counter() if steps is None
               else tf.data.Dataset.range(steps))
    return numbers.map(make).with_options(options)


@pytest.fixture(autouse=True)
def synthetic(monkeypatch, tmp_path):
  """Replaces data alone: this file is about the loop."""
  monkeypatch.setattr(pipeline, 'Streams', Rows)
  folder = tmp_path / 'data' / 'udhr'
  folder.mkdir(parents=True)
  (folder / 'manifest.json').write_text(json.dumps(
      {'dataset': 'udhr', 'tokenizer': {'source': 'x', 'sha256': 'ab'}}))


def make_config(tmp_path, **changes):
  config = base.get_config()
  config.model.update(
      dataclasses.asdict(models.TINY), num_layers=1, dtype='float32')
  config.data.data_dir = str(tmp_path / 'data')
  config.data.text.datasets = ('udhr',)
  config.tasks = dict(xmlm=base.task_config('masked_lm', 'text', 4))
  config.optimizer.schedule = 'constant'
  config.optimizer.warmup_steps = 2
  config.optimizer.learning_rate = 1e-2
  config.optimizer.rate_factors = ((r'^tokens/', 0.0),)
  config.optimizer.adapters = ((r'^encoder/mlp/', 2),)
  # What is validated and saved; a resumed run goes on from both.
  config.optimizer.average_decay = 0.5
  config.num_train_steps = 6
  # What a save finds between two lines is kept with it.
  config.log_every_steps = 2
  config.checkpoint_every_steps = 2
  config.eval_batches = 2
  config.mesh.data = 1
  config.update(changes)
  return config


def lines(workdir):
  return [{key: value for key, value in line.items() if key not in TIMES}
          for line in metrics.read(workdir / 'metrics.jsonl')]


@pytest.fixture
def whole(tmp_path, tmp_path_factory):
  """Returns the workdir of an uninterrupted run of six steps, made once."""
  workdir = tmp_path_factory.getbasetemp() / 'whole'
  if not workdir.exists():
    train.train_and_evaluate(make_config(tmp_path), workdir)
  return workdir


def params_at(workdir, step):
  return checkpoint.load(workdir / 'checkpoints' / str(step))[0]


def test_run_leaves_what_the_design_says(whole):
  assert json.loads((whole / 'config.json').read_text())[
      'num_train_steps'] == 6
  assert checkpoint.steps(whole / 'checkpoints') == [2, 4, 6]
  _, manifest = checkpoint.peek(whole)
  assert list(manifest.pop('data')) == ['udhr']
  assert manifest == {'tokenizer': {'source': 'x', 'sha256': 'ab'},
                      'languages': ['en'], 'objectives': ['masked_lm']}
  written = metrics.read(whole / 'metrics.jsonl')
  assert [line['step'] for line in written] == [0, 2, 4, 6, 6]
  assert list(written[0]) == ['step', 'validation/xmlm/accuracy',
                              'validation/xmlm/loss',
                              'validation/xmlm/unigram_loss']
  for name in ('xmlm/loss', 'xmlm/accuracy', 'train/loss',
               'train/learning_rate', *TIMES):
    assert name in written[1]
  np.testing.assert_allclose(
      written[1]['train/learning_rate'], 1e-2, rtol=1e-6)
  assert list(whole.glob('tensorboard/events*'))


def test_another_seed_gives_other_losses(whole, tmp_path):
  other = tmp_path / 'other'
  train.train_and_evaluate(
      make_config(tmp_path, num_train_steps=2, seed=1), other)
  assert lines(other)[1] != lines(whole)[1]


def test_sigterm_saves_and_the_resumed_run_is_the_same(
    whole, tmp_path, monkeypatch, capfd):
  put_rows, calls = sharding.put_rows, []

  def put_and_stop(mesh, rows):
    calls.append(rows)
    if len(calls) == 2 + 3:  # Two validation batches, then the third step.
      os.kill(os.getpid(), signal.SIGTERM)
    return put_rows(mesh, rows)

  workdir = tmp_path / 'cut'
  with monkeypatch.context() as patch:
    patch.setattr(sharding, 'put_rows', put_and_stop)
    with pytest.raises(SystemExit) as stop:
      train.train_and_evaluate(make_config(tmp_path), workdir)
  assert stop.value.code == 0
  assert checkpoint.steps(workdir / 'checkpoints') == [2, 3]
  train.train_and_evaluate(make_config(tmp_path), workdir)
  assert lines(workdir) == lines(whole)
  jax.tree.map(np.testing.assert_array_equal,
               params_at(workdir, 6), params_at(whole, 6))


def test_killed_run_goes_on_from_the_save_before(whole, tmp_path):
  workdir = tmp_path / 'killed'
  shutil.copytree(whole, workdir)
  # As after a kill -9 in step 5, with the last save cut off.
  shutil.rmtree(workdir / 'checkpoints' / '6')
  shutil.rmtree(workdir / 'checkpoints' / '4' / 'params')
  train.train_and_evaluate(make_config(tmp_path), workdir)
  assert lines(workdir) == lines(whole)
  jax.tree.map(np.testing.assert_array_equal,
               params_at(workdir, 6), params_at(whole, 6))


def test_frozen_parameters_are_the_initial_ones(whole):
  first, last = params_at(whole, 2), params_at(whole, 6)
  np.testing.assert_array_equal(first['tokens']['embedding'],
                                last['tokens']['embedding'])
  assert (first['pooler']['kernel'] == last['pooler']['kernel']).all()
  assert (first['embedding_norm']['scale']
          != last['embedding_norm']['scale']).any()


def test_reached_goal_returns_at_once(whole, tmp_path, monkeypatch):
  monkeypatch.setattr(pipeline, 'Streams', None)
  assert train.train_and_evaluate(make_config(tmp_path), whole) == {}


def test_other_config_is_refused_by_key(whole, tmp_path):
  config = make_config(tmp_path, seed=3, log_every_steps=1)
  config.optimizer.b2 = 0.5
  with pytest.raises(errors.UserError) as error:
    train.train_and_evaluate(config, whole)
  assert 'seed: 0 -> 3' in str(error.value)
  assert 'optimizer.b2: 0.98 -> 0.5' in str(error.value)
  assert 'log_every_steps: ' not in str(error.value)


def test_init_from_takes_weights_and_geometry(whole, tmp_path):
  config = make_config(tmp_path, num_train_steps=1, seed=5, eval_batches=0,
                       init_from=str(whole))
  config.model.mlp_width = 64  # Of the config file: gives way.
  config.optimizer.rate_factors = ((r'^embedding_norm/', 1.0), (r'', 0.0))
  config.optimizer.adapters = ()
  workdir = tmp_path / 'tuned'
  train.train_and_evaluate(config, workdir)
  np.testing.assert_array_equal(
      params_at(workdir, 1)['encoder']['mlp']['inner']['kernel'],
      params_at(whole, 6)['encoder']['mlp']['inner']['kernel'])
  assert json.loads((workdir / 'config.json').read_text())[
      'model']['mlp_width'] == models.TINY.mlp_width
  with pytest.raises(errors.UserError, match=r'model\.mlp_width is 64'):
    train.train_and_evaluate(config, tmp_path / 'x',
                             given=('model.mlp_width',))


def test_other_tokenizer_than_the_weights_is_refused(whole, tmp_path):
  (tmp_path / 'data' / 'udhr' / 'manifest.json').write_text(
      json.dumps({'tokenizer': {'source': 'x', 'sha256': 'cd'}}))
  config = make_config(tmp_path, init_from=str(whole))
  with pytest.raises(errors.UserError, match=r'tokenizer.*cd.*ab'):
    train.train_and_evaluate(config, tmp_path / 'x')


@pytest.mark.parametrize(('found', 'message'), [
    ({'tokenizer': {'sha256': 'ab', 'vocab_size': 250_003}},
     r'vocab_size is 250,002 \(fresh\).*has 250,003 ids'),
    ({'feature_extractor': {'feature_dim': 2048}},
     'region_feature_dim is 12 .* have 2,048 numbers'),
    ({'feature_extractor': {'num_regions': 101}},
     'text_position is 100 .* have up to 101 regions; allowed: as many'),
    ({'max_class_id': 7}, 'num_region_classes is 7 .* up to 7; .* up to 6'),
    ({'features': {'found': {'class_ids': 'as in the file'}}},
     'class_ids of .* is as in the file')])
def test_data_that_do_not_fit_are_refused(tmp_path, found, message):
  config = make_config(tmp_path)
  config.model.text_position = 100
  config.tasks = dict(mrm=base.task_config('masked_region', 'image_text', 4))
  config.data.image_text.datasets = ('a', 'b')
  config.data.image_text.languages = ('en',)
  for name, more in (('a', {}), ('b', found)):
    folder = tmp_path / 'data' / name
    folder.mkdir()
    (folder / 'manifest.json').write_text(json.dumps(
        {'features': {'found': {'class_ids': 'class + 1'}}} | more))
  with pytest.raises(errors.UserError, match=message):
    train.train_and_evaluate(config, tmp_path / 'run')


def test_broken_loss_stops_with_its_step_and_keeps_the_save(tmp_path):
  config = make_config(tmp_path, checkpoint_every_steps=1, eval_batches=0,
                       max_bad_steps=2)
  config.optimizer.learning_rate = 1e30
  config.optimizer.warmup_steps = 0
  with pytest.raises(errors.UserError) as error:
    train.train_and_evaluate(config, tmp_path / 'run')
  told = str(error.value)
  assert re.search(r'step [34]: .*xmlm/loss = nan', told)
  assert 'after 2 such steps in a row' in told
  # The four rows of the batch, by their checksums.
  assert re.search(r'in the batch xmlm: [0-9a-f]{8}( [0-9a-f]{8}){3};', told)
  assert checkpoint.steps(tmp_path / 'run' / 'checkpoints')[0] == 1
  # Updates that are not finite were left out of what was saved.
  newest = checkpoint.load(tmp_path / 'run')[0]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(newest))


def test_a_run_does_not_go_on_with_other_data(whole, tmp_path):
  manifest = tmp_path / 'data' / 'udhr' / 'manifest.json'
  content = json.loads(manifest.read_text())
  manifest.write_text(json.dumps(content | {'options': {'files': 'others'}}))
  # Nothing is left to do: nothing can go wrong.
  assert train.train_and_evaluate(make_config(tmp_path), whole) == {}
  with pytest.raises(errors.UserError, match='udhr was prepared again'):
    train.train_and_evaluate(make_config(tmp_path, num_train_steps=7), whole)
