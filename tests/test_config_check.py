"""Keys and values of a config that cannot be meant."""

import json

import jax
import pytest

from configs import base
from input_pipeline import errors
from m3p_jax import config_check
from m3p_jax import sharding
from m3p_jax.training import start


def make_config():
  config = base.get_config()
  config.data.text.datasets = ('udhr',)
  config.tasks = dict(xmlm=base.task_config('masked_lm', 'text', 4))
  config.optimizer.rate_factors = ((r'^tokens/', 0.0),)
  return config


@pytest.mark.parametrize('key, value, message', [
    ('tasks', {}, 'tasks is empty'),
    ('tasks.xmlm.objective', 'masked_ml', "did you mean 'masked_lm'"),
    ('tasks.xmlm.objective', 'masking', 'has no `loss`'),
    ('tasks.xmlm.stream', 'txt', "did you mean 'text'"),
    ('tasks.xmlm.objective', 'contrastive',
     r"stream of tasks\.xmlm \(contrastive\) 'text'"),
    ('tasks.xmlm.options', {'mask_rat': 1}, "did you mean 'mask_rate'"),
    ('tasks.xmlm.batch_size', 0, 'batch_size is 0; allowed: 1 or more'),
    ('data.languages', ('xx',), "language 'xx'"),
    ('data.text.languages', ('de',), "language of data.text.languages 'de'"),
    ('data.text.datasets', (), r'data\.text\.datasets is empty'),
    ('keep_checkpoints', 0, 'keep_checkpoints is 0; allowed: 1 or more'),
])
def test_values_that_cannot_be_meant(key, value, message):
  config = make_config()
  section, _, last = key.rpartition('.')
  (config_of(config, section) if section else config)[last] = value
  with pytest.raises(errors.UserError, match=message):
    config_check.check(config)


def config_of(config, section):
  for part in section.split('.'):
    config = config[part]
  return config


def test_unknown_key_of_a_config_file():
  config = make_config()
  config.optimizer.learning_rat = 1.0
  with pytest.raises(errors.UserError,
                     match=r"nearest is 'optimizer\.learning_rate'"):
    config_check.check(config)
  config = make_config()
  config.tasks.xmlm.wieght = 1.0
  with pytest.raises(errors.UserError, match=r"did you mean 'weight'"):
    config_check.check(config)


def test_values_found_later_are_told_as_well(tmp_path):
  config = make_config()
  config.data.data_dir = str(tmp_path)
  with pytest.raises(errors.UserError, match=r'--dataset=udhr'):
    start.resolve(config, tmp_path)
  (tmp_path / 'udhr').mkdir()
  (tmp_path / 'udhr' / 'manifest.json').write_text('{}')
  start.resolve(config, tmp_path)
  config.model.num_heads = 5
  with pytest.raises(errors.UserError, match=r'model\.num_heads'):
    start.resolve(config, tmp_path)
  config = make_config()
  config.data.data_dir = str(tmp_path)
  config.init_from = '/not/there'
  with pytest.raises(errors.UserError, match='no checkpoint here'):
    start.resolve(config, tmp_path)
  schedule, tx = start.make_optimizer(config)
  assert float(schedule(0)) > 0
  with pytest.raises(errors.UserError, match='matches no parameter'):
    start.abstract_state(
        start.ModelConfig(), tx=tx,
        mesh=sharding.make_mesh(1, 1, jax.devices()[:1]),
        rate_factors=((r'^tokns/', 0.0),))


def test_saved_config_comes_back_as_it_was(tmp_path):
  config = make_config()
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(config_check.to_json(config)))
  assert config_check.get_config(str(path)).to_dict() == config.to_dict()


def test_workdirs_of_version_1_are_read_and_resumed(tmp_path):
  config = make_config()
  saved = config_check.to_json(config)
  saved['model'] |= {'platform': 'auto', 'remat': 'lean'}
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(saved))
  found = config_check.get_config(str(path))
  assert start.model_options(found).remat == 'projections'
  config_check.check_resumable(saved, config, tmp_path)


def test_some_keys_may_change_on_resuming(tmp_path):
  config = make_config()
  saved = config_check.to_json(config)
  config.num_train_steps = 7
  config.data.data_dir = '/moved'
  config.evaluation.mode = 'dual'
  config_check.check_resumable(saved, config, tmp_path)
  config.tasks.xmlm.weight = 2.0
  with pytest.raises(errors.UserError,
                     match=r'tasks\.xmlm\.weight: 1\.0 -> 2\.0'):
    config_check.check_resumable(saved, config, tmp_path)
