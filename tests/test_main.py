"""The command line: every mistake is one line that says what to do."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from m3p_jax import command_line
from m3p_jax import config as config_lib

ROOT = pathlib.Path(config_lib.__file__).parents[1]
QUICKSTART = '--config=configs/quickstart.py:all'


def run(*arguments):
  return subprocess.run(
      [sys.executable, 'main.py', *map(str, arguments)], cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'},
      capture_output=True, text=True, check=False)


@pytest.mark.parametrize('arguments, message', [
    ((QUICKSTART,), '--workdir=DIR is missing'),
    (('--workdir={}',), '--config=FILE is missing, and there is no'),
    (('--workdir={}', '--config=configs/quickstrt.py'),
     'did you mean configs/quickstart.py?'),
    (('--workdir={}', '--config=configs/quickstart.py:finetune'),
     'allowed: warm_start, pretrain, en, all'),
    (('--workdir={}', QUICKSTART, '--mode=plans'),
     '<train|evaluate|generate|plan|search|serve|export>'),
    (('--workdir={}', QUICKSTART, '--mode=serch'),
     'did you mean --mode=search'),
    (('--workdir={}', QUICKSTART, '--learning_rate=1'),
     'did you mean --config.optimizer.learning_rate?'),
    (('--workdir={}', QUICKSTART, '--wrokdir=x'), 'did you mean --workdir?'),
    (('--workdir={}', QUICKSTART, 'evaluate'), 'did you mean --mode=evaluate?'),
    (('--workdir={}', QUICKSTART, '--mode=plan',
      '--config.plan.topology=v9:2x4'), "'v9'"),
    (('--workdir={}', QUICKSTART, '--config.optimizer.learning_rat=1'),
     "'optimizer.learning_rat'; the nearest is 'optimizer.learning_rate'"),
    (('--workdir={}', QUICKSTART, '--config.learning_rate=1'),
     "the nearest is 'optimizer.learning_rate'"),
    (('--workdir={}', QUICKSTART, '--config.optimizer.learning_rate=fast'),
     'config.optimizer.learning_rate=fast'),
    (('--workdir={}', QUICKSTART, '--mode=search'), '--query'),
    (('--workdir={}', QUICKSTART, '--query=cat'), '--mode=search'),
    (('--workdir={}', QUICKSTART, '--port=80'), '--port needs --mode=serve'),
    (('--workdir={}', QUICKSTART, '--mode=export'), '--out=DIR'),
    (('--workdir={}', QUICKSTART, '--mode=serve', '--token=secret'),
     '--token has 6 characters; allowed: 16 to 200'),
    (('--workdir={}', QUICKSTART, '--json'), '--json needs --mode=search'),
])
def test_a_mistake_is_one_line(tmp_path, arguments, message):
  result = run(*(argument.format(tmp_path) for argument in arguments))
  assert result.returncode == 2
  assert not result.stdout
  errors = [line for line in result.stderr.splitlines()
            if line.startswith('error: ')]
  assert len(errors) == 1
  assert message in errors[0]
  assert 'Traceback' not in result.stderr


def test_an_exported_index_is_searched_and_no_run(tmp_path):
  (tmp_path / 'vectors.npy').touch()
  (tmp_path / 'manifest.json').write_text('{}')
  for arguments, message in (
      (('--mode=train',), 'is an exported index; allowed: --mode=search'),
      (('--mode=search', '--query=a'), "format is None; allowed: 'm3p_jax")):
    result = run(f'--workdir={tmp_path}', *arguments)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]


def test_bytes_that_are_no_utf_8_are_told(tmp_path):
  result = run(f'--workdir={tmp_path}', QUICKSTART, '--mode=search',
               '--query=caf\udce9')
  assert result.returncode == 2
  assert result.stderr.startswith(
      "error: '--query=caf\\udce9' is not UTF-8; allowed: ")


def test_help_explains_every_mode_and_flag():
  result = run('--help')
  for mode, names in command_line.MODES.items():
    assert re.search(rf'^{mode} +\w', result.stdout, re.MULTILINE)
    for name in names:
      assert re.search(rf'--(\[no\])?{name}: ', result.stdout)
  assert max(map(len, result.stdout.splitlines())) <= 80


def test_config_of_the_workdir_is_used_and_can_be_changed(tmp_path):
  saved = config_lib.to_json(config_lib.base.get_config())
  saved['num_train_steps'] = 0
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  result = run(f'--workdir={tmp_path}')
  assert 'tasks is empty' in result.stderr
  result = run(f'--workdir={tmp_path}', '--config.evaluation.tpo_k=3')
  assert "nearest is 'evaluation.top_k'" in result.stderr
  saved['model']['widht'] = 3
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  result = run(f'--workdir={tmp_path}')
  assert result.returncode == 2
  assert "nearest is 'model.width'" in result.stderr


@pytest.mark.parametrize('arguments', [
    ('--config=A', '--workdir=B', '--k=3'), ('--config', 'A', '--k=3',
                                             '--workdir', 'B'),
    ('--k=3', '-workdir=B', '--config=C', '--config=A')])
def test_config_and_workdir_are_found_however_they_are_written(arguments):
  assert command_line._split(['main.py', *arguments]) == ('A', 'B', ['--k=3'])


def test_a_saved_config_is_a_config(tmp_path):
  saved = config_lib.to_json(config_lib.base.get_config())
  saved['tasks'] = {'m': config_lib.base.task_config(
      'matching', 'image_text', 4).to_dict()}
  saved['data']['image_text']['datasets'] = ['tux_paint']
  path = tmp_path / 'a run' / 'config.json'
  path.parent.mkdir()
  path.write_text(json.dumps(saved))
  arguments = ['--config', path, f'--workdir={tmp_path / "new"}']
  result = run(*arguments,
               '--config.data.data_dir=/moved')
  assert 'a run/config.json with data.data_dir=/moved' in result.stderr
  assert 'error: /moved/tux_paint/manifest.json: not there' in result.stderr
  saved['seed'] = 'seven'
  path.write_text(json.dumps(saved))
  result = run(*arguments)
  assert result.returncode == 2
  assert "config.json: seed is 'seven'" in result.stderr


@pytest.mark.parametrize('text, value', [
    ('en', ('en',)), ('en,de', ('en', 'de')), ('en, zh_CN', ('en', 'zh_CN')),
    ("('en', 'de')", ('en', 'de')), ('is,as', ('is', 'as')), ('', ()),
    ('1,2', (1, 2)), ('((r"^tokens/", 0.0),)', (('^tokens/', 0.0),)),
])
def test_lists(text, value):
  assert command_line.ListParser().parse(text) == value


def test_broken_list_is_refused():
  with pytest.raises(ValueError, match='not a list'):
    command_line.ListParser().parse("('en', ")
