"""The four settings: what each config trains on, and their one command."""

import importlib
import json
import shutil

import pytest

from configs import finetune_coco
from configs import finetune_tux_paint
from configs import finetuning
from input_pipeline import errors
from m3p_jax import config as config_lib
from m3p_jax.evaluation import compare
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import results
from m3p_jax.recipes import finetune
from tests import retrieval_data
from tests import test_statistics


@pytest.mark.parametrize('name', finetune.names())
@pytest.mark.parametrize('setting', finetuning.SETTINGS)
def test_configs_say_which_languages_a_setting_sees(name, setting):
  module = importlib.import_module(f'configs.finetune_{name}')
  config = module.get_config(setting)
  config_lib.check(config)
  protocols.get(config.evaluation.protocol)
  assert config.setting == setting
  seen = config.data.image_text.languages
  if setting in ('each', 'all'):
    assert seen == module.LANGUAGES
  else:
    assert seen == ('en',)


def test_each_is_one_language_at_a_time():
  config = finetune_coco.get_config('each,zh_CN')
  assert config.data.image_text.languages == ('zh_CN',)
  assert config.data.image_text.datasets == ('coco_cn',)
  assert finetune_coco.get_config('each,ja').data.image_text.datasets == (
      'coco',)
  for wrong in ('each,xx', 'en,de', 'most', 'all,references'):
    with pytest.raises(ValueError, match='allowed'):
      finetune_coco.get_config(wrong)


def test_the_recipe_can_be_the_releases(tmp_path):
  def config(name, setting, language):
    return finetune.Finetune(
        name, tmp_path, tmp_path, init_from='x', overrides={},
        is_reference=True).config(setting, language)

  assert config('coco', 'each', 'ja').data.image_text.languages == ('ja',)
  with pytest.raises(errors.UserError, match='allowed: no "reference"'):
    config('tux_paint', 'all', '')
  found = config('multi30k', 'all', '')
  (task,) = found.tasks.values()
  # reference.md, section 5: four candidates, random negatives, binary
  # cross-entropy only, clipped at 5, 5e-5.
  assert task.objective == 'retrieval'
  assert task.options.to_dict() == {'num_candidates': 4}
  assert (found.optimizer.clip_norm, found.optimizer.learning_rate) == (
      5.0, 5e-5)


def test_one_command_trains_and_evaluates_the_settings(tmp_path, monkeypatch):
  pretrained = retrieval_data.make_workdir(tmp_path)
  monkeypatch.setattr(finetune_tux_paint, 'LANGUAGES', ('en', 'de'))
  recipe = finetune.Finetune(
      'tux_paint', tmp_path / 'out', tmp_path / 'data',
      init_from=str(pretrained), overrides={
          'model.dtype': 'float32', 'model.dropout': 0.0,
          'model.attention_dropout': 0.0, 'data.languages': ('en', 'de'),
          'data.text.languages': ('en', 'de'),
          'data.image_text.datasets': ('pairs',), 'data.image_text.shots': 6,
          'data.image_text.code_switch.rate': 0.0,
          'num_train_steps': 1, 'eval_batches': 0,
          'tasks.contrastive.batch_size': 4, 'evaluation.dataset': 'pairs',
          'evaluation.languages': ('en', 'de')})
  settings = ('no_finetune', 'each')
  recipe.run(settings)
  workdir = tmp_path / 'out'
  content = json.loads((workdir / 'retrieval.json').read_text())
  assert list(content['settings']) == list(settings)
  for setting, cell in content['settings'].items():
    assert set(cell['languages']) == {'en', 'de'}
    assert set(results.load_ranks(workdir / 'retrieval.json', setting)) == {
        'en', 'de'}
    assert f'| {setting} | ' in recipe.table()
  # The languages of `each` come from two runs; done is done.
  files = {path: path.stat().st_mtime_ns for path in (
      workdir / 'each' / language / 'metrics.jsonl'
      for language in ('en', 'de'))}
  recipe.run(settings)
  assert files == {path: path.stat().st_mtime_ns for path in files}
  # Compared with itself, no run is better.
  runs = [compare.load(f'{workdir}/retrieval.json:each')] * 2
  assert {row.p for row in compare.compare(*runs)} == {1.0}
  # Other weights at the same place: evaluated again, and not trained on from.
  shutil.rmtree(pretrained / 'checkpoints')
  retrieval_data.save_checkpoint(pretrained / 'checkpoints', step=8)
  with pytest.raises(errors.UserError, match='en was made from other data or'):
    recipe.run(settings)
  content = json.loads((workdir / 'retrieval.json').read_text())
  assert content['settings']['no_finetune']['step'] == 8


def test_the_table_has_intervals_and_others_beside(tmp_path):
  path = tmp_path / 'retrieval.json'
  results.write(path, {'settings': {'all': {'languages': {
      'en': {'mean_recall': 25.0, 'chance': 4.0}}}}})
  results.update_ranks(path, 'all', {
      'en': test_statistics.language([1, 99, 99, 99])})
  text = finetune.table(path, {'en': ['en'], 'held out': ['ko', 'th']},
                        ['all'], beside={
                            'floor: before': {'en': 41.9, 'ka': 12.2}})
  assert '| all | 25.0 (0.0–75.0) | – |' in text
  assert '| floor: before | 41.9 | 12.2 |' in text
  assert text.endswith('| all | 25.0 | – |')


def test_mistakes_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="'multi'.*multi30k"):
    finetune.Finetune('multi', tmp_path, tmp_path, init_from='x', overrides={})
  with pytest.raises(errors.UserError, match='--init_from=DIR is missing'):
    finetune.Finetune('coco', tmp_path, tmp_path, init_from='', overrides={})
