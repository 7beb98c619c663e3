"""Stages of a recipe: timed, skipped, resumed, never replaced silently."""

import json
import pathlib

import pytest

from input_pipeline import errors
from m3p_jax.recipes import stages


def _records(workdir: pathlib.Path):
  return json.loads((workdir / 'timings.json').read_text())


def test_a_finished_stage_is_skipped(tmp_path, capsys):
  calls = []
  for _ in range(2):
    recipe = stages.Stages(tmp_path, 1)
    recipe.run('one', lambda: calls.append(1), title='the first')
  assert calls == [1]
  assert _records(tmp_path)['one']['finished']
  captured = capsys.readouterr()
  assert '[ 1/1] the first: done before' in captured.err
  assert not captured.out


def test_a_stage_that_was_cut_off_goes_on_and_adds_its_seconds(
    tmp_path, monkeypatch):
  clock = iter([0.0, 10.0, 100.0, 105.0])
  monkeypatch.setattr(stages.time, 'monotonic', lambda: next(clock))

  def fail():
    raise OSError('disk full')

  with pytest.raises(OSError, match='disk full'):
    stages.Stages(tmp_path, 1).run('one', fail, title='')
  assert _records(tmp_path)['one']['seconds'] == 10
  assert not _records(tmp_path)['one']['finished']
  stages.Stages(tmp_path, 1).run('one', lambda: None, title='')
  assert _records(tmp_path)['one']['seconds'] == 15
  assert _records(tmp_path)['one']['finished']


def test_a_stage_whose_output_is_gone_runs_again(tmp_path):
  output = tmp_path / 'out'
  for _ in range(2):
    stages.Stages(tmp_path, 1).run('a', output.touch, title='', output=output)
    assert output.exists()
    output.unlink()


def test_long_work_is_never_replaced_silently(tmp_path):
  output = tmp_path / 'pretrain'

  def work():
    output.mkdir()
    (output / 'config.json').write_text(json.dumps({'num_train_steps': 5}))

  def run(steps):
    stages.Stages(tmp_path, 1).run(
        'pretrain', work, title='', settings={'num_train_steps': steps},
        output=output, resumes=True)

  run(5)
  with pytest.raises(errors.UserError,
                     match=r'pretrain.*num_train_steps 5, now 6.*--workdir'):
    run(6)


def test_what_changes_no_weights_is_no_setting():
  config = {'seed': 1, 'data': {'data_dir': 'x', 'languages': ['en']},
            'evaluation': {'top_k': 5}, 'init_from': 'y', 'mesh': {'data': 2}}
  assert stages.settings_of(config) == {'seed': 1, 'data.languages': ['en']}


def test_keys_that_came_later_are_settings_where_they_say_something():
  task = {'options': {}, 'data': {}, 'noise': {}}
  config = {'model': {'heads': []}, 'tasks': {'a': task}}
  assert stages.settings_of(config) == {'tasks.a.options': {}}
  task = task | {'data': {'languages': ['de']}}
  assert stages.settings_of(config | {'tasks': {'a': task}}) == {
      'tasks.a.options': {}, 'tasks.a.data.languages': ['de']}


def _run(workdir, work, *, settings=None, inputs=None, made=lambda: None,
         **options):
  recipe = stages.Stages(workdir, 2)
  recipe.run('data', work, title='', settings=settings, inputs=inputs,
             made=made)
  recipe.run('train', lambda: work('train'), title='', after=['data'],
             **options)


@pytest.mark.parametrize('change, again', [
    # What reads it runs again where it was another thing that was made.
    ('settings', ['data', 'train']), ('made', ['data', 'train']),
    ('inputs', ['data'])])
def test_a_change_runs_a_stage_and_those_after_it_again(
    tmp_path, change, again):
  calls, now = [], {'settings': 1, 'inputs': 1, 'made': 'a'}

  def run():
    _run(tmp_path, lambda what='data': calls.append(what),
         **now | {'made': lambda: now['made']})

  run()
  run()
  assert calls == ['data', 'train']
  now[change] = 'other'
  run()
  run()
  assert calls[2:] == again


def test_long_work_on_other_data_is_refused(tmp_path):
  output = tmp_path / 'train'

  def run(made):
    _run(tmp_path, lambda what='': what and output.mkdir(), inputs=made,
         made=lambda: made, output=output, resumes=True)

  run('a')
  run('a')
  with pytest.raises(errors.UserError, match='train was made from other data'):
    run('b')


def test_records_of_version_1_are_done(tmp_path):
  calls = []
  for value in (1, 2):
    _run(tmp_path, lambda what='data': calls.append(what), inputs=value,
         made=lambda value=value: value)
    records = _records(tmp_path)
    for record in records.values():
      record.pop('inputs', None), record.pop('made', None)
    (tmp_path / 'timings.json').write_text(json.dumps(records))
  assert calls == ['data', 'train']
