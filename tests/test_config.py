"""Keys and values of a config that cannot be meant."""

import json

import jax
import pytest

from configs import base
from input_pipeline import errors
from m3p_jax import config as config_lib
from m3p_jax import sharding
from m3p_jax import startup


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
     "tasks.xmlm.stream is 'text'; allowed for contrastive: image_text"),
    ('tasks.xmlm.options', {'mask_rat': 1}, "did you mean 'mask_rate'"),
    ('tasks.xmlm.options', {'mask_rate': 'all'},
     "tasks.xmlm.options.mask_rate is 'all'; allowed: a value like 0.15"),
    ('tasks.xmlm.options', {'use_picture': 1}, 'a value like True'),
    ('tasks.xmlm.weight_schedule', '0:0,9',
     r"weight_schedule is '0:0,9'; allowed: step:factor"),
    ('tasks.xmlm.weight_schedule', '9:1,0:0', 'the steps rising'),
    ('tasks.xmlm.weight_schedule', '0:nan', "is '0:nan'"),
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
    config_lib.check(config)


def config_of(config, section):
  for part in section.split('.'):
    config = config[part]
  return config


def test_unknown_key_of_a_config_file():
  config = make_config()
  config.optimizer.learning_rat = 1.0
  with pytest.raises(errors.UserError,
                     match=r"nearest is 'optimizer\.learning_rate'"):
    config_lib.check(config)
  config = make_config()
  config.tasks.xmlm.wieght = 1.0
  with pytest.raises(errors.UserError, match=r"did you mean 'weight'"):
    config_lib.check(config)


def test_values_found_later_are_told_as_well(tmp_path):
  config = make_config()
  config.data.data_dir = str(tmp_path)
  with pytest.raises(errors.UserError, match=r'--dataset=udhr'):
    startup.resolve(config, tmp_path)
  (tmp_path / 'udhr').mkdir()
  (tmp_path / 'udhr' / 'manifest.json').write_text('{}')
  startup.resolve(config, tmp_path)
  config.model.num_heads = 5
  with pytest.raises(errors.UserError, match=r'model\.num_heads'):
    startup.resolve(config, tmp_path)
  config = make_config()
  config.data.data_dir = str(tmp_path)
  config.init_from = '/not/there'
  with pytest.raises(errors.UserError, match='no checkpoint here'):
    startup.resolve(config, tmp_path)
  schedule, tx = startup.make_optimizer(config)
  assert float(schedule(0)) > 0
  with pytest.raises(errors.UserError, match='matches no parameter'):
    startup.abstract_state(
        startup.ModelConfig(), tx=tx,
        mesh=sharding.make_mesh(devices=jax.devices()[:1]),
        rate_factors=((r'^tokns/', 0.0),))


def test_saved_config_comes_back_as_it_was(tmp_path):
  config = make_config()
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(config_lib.to_json(config)))
  assert config_lib.get_config(str(path)).to_dict() == config.to_dict()


@pytest.mark.parametrize('change, message', [
    ({'seed': 'x'}, r"config\.json: seed is 'x'; allowed: a value like 0"),
    ({'seed': None}, 'seed is None'),
    ({'data': 3}, 'data is 3; allowed: an object with data_dir'),
    ({'data': {'languages': 'en'}}, r"data\.languages is 'en'"),
    ({'data': {'languages': [1]}}, r'data\.languages is \[1\]'),
    ({'data': {'text': {'concatenate': 1}}}, r'data\.text\.concatenate is 1'),
    ({'tasks': []}, r'tasks is \[\]; allowed: an object'),
    ({'tasks': {'a': 3}}, r'tasks\.a is 3'),
    ({'tasks': {'a': {'objective': 'xmlm'}}}, r'tasks\.a has no batch_size'),
    ({'tasks': {'a': {'batch_size': '8'}}}, r"batch_size is '8'"),
    ({'model': {'widht': 3}}, r"nearest is 'model\.width'"),
    ([1], 'holds a list; allowed: an object'),
])
def test_a_saved_config_that_cannot_be_meant(tmp_path, change, message):
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(change))
  with pytest.raises(errors.UserError, match=message):
    config_lib.get_config(str(path))


@pytest.mark.parametrize('content', [b'{', b'{"seed": 1, "\xff": 2}'])
def test_a_saved_config_that_is_no_json(tmp_path, content):
  path = tmp_path / 'config.json'
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='no config in JSON'):
    config_lib.get_config(str(path))


def test_workdirs_of_version_1_are_read_and_resumed(tmp_path):
  config = make_config()
  saved = config_lib.to_json(config)
  saved['model'] |= {'platform': 'auto', 'remat': 'lean'}
  for task in saved['tasks'].values():
    del task['rows']
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(saved))
  found = config_lib.get_config(str(path))
  assert startup.model_options(found).remat == 'projections'
  config_lib.check_resumable(saved, config, tmp_path)


def test_some_keys_may_change_on_resuming(tmp_path):
  config = make_config()
  saved = config_lib.to_json(config)
  config.num_train_steps = 7
  config.data.data_dir = '/moved'
  config.evaluation.mode = 'dual'
  config_lib.check_resumable(saved, config, tmp_path)
  config.tasks.xmlm.weight = 2.0
  with pytest.raises(errors.UserError,
                     match=r'tasks\.xmlm\.weight: 1\.0 -> 2\.0'):
    config_lib.check_resumable(saved, config, tmp_path)
