"""The recipe for Multi30K, on six pictures: files → table, and only once."""

import shutil

import pytest

from configs import finetune_multi30k_small as small
from configs import finetuning
from configs import photos
from input_pipeline import errors
from input_pipeline import sources
from m3p_jax.evaluation import results
from m3p_jax.recipes import multi30k
from m3p_jax.recipes import stages
from tests import caption_trees

_SETTINGS = ('no_finetune', 'en')


def test_from_files_to_the_table(tmp_path, capfd):
  if shutil.which('apt-get') is None:
    pytest.skip('pictures and dictionaries come through apt')
  raw = caption_trees.multi30k(tmp_path / 'raw')
  (stamps,) = sources.fetch('tuxpaint-stamps-default').rglob('stamps')
  (raw / 'images').mkdir()
  photos = sorted((stamps / 'food' / 'fruit').glob('*.png'))
  for number in range(1, 7):
    # Pictures are known by their content, not by their endings.
    shutil.copy(photos[number], raw / 'images' / f'{number}.jpg')
  options = stages.Options(tmp_path / 'run', tmp_path / 'data', 0, {
      'model.num_layers': 1, 'num_train_steps': 1, 'fit_first_values': False,
      'eval_batches': 0, 'optimizer.warmup_steps': 0})

  def run():
    return multi30k.Multi30k(
        options, str(raw), name='multi30k_small', init_from='').run(
            _SETTINGS, (1,))

  tables = run()
  assert 'multi30k_task1 (test), protocol multi30k-task1, dual' in tables
  assert 'multi30k (test), protocol multi30k-task2x5, dual' in tables
  assert '## Fine-tuned on 1 pictures a language' in tables
  found = results.read(tmp_path / 'run' / 'finetune' / 'retrieval.json')
  assert list(found['settings']) == list(_SETTINGS)
  for setting in _SETTINGS:
    assert set(found['settings'][setting]['languages']) == {
        'en', 'de', 'fr', 'cs'}
  names = results.read(tmp_path / 'run' / 'names' / 'retrieval.json')
  assert list(names['settings']) == ['no_finetune']
  capfd.readouterr()
  assert run() == tables
  err = capfd.readouterr().err
  assert err.count('done before') == err.count('[') > 14


@pytest.mark.parametrize('get_config, argument', [
    *((small.get_config, name) for name in (
        *small.STAGES, *small.SHORT, *finetuning.SETTINGS)),
    *((photos.get_config, name) for name in (
        'names', 'aligned', 'switched', 'longer', 'joint'))])
def test_names_of_classes_have_no_validation_split_to_ask_for(
    get_config, argument):
  config = get_config(argument)
  names_alone = 'class_names' in config.data.image_text.datasets
  assert bool(config.eval_batches) != names_alone


@pytest.mark.parametrize('value', ['ten', '', '0', '-1', '2.5'])
def test_shots_are_numbers_of_pictures(value):
  assert multi30k.parse_shots(['10', '1000']) == (10, 1000)
  with pytest.raises(errors.UserError, match='--shots has .*1 and more'):
    multi30k.parse_shots(['10', value])


@pytest.mark.parametrize('raw_dir, name, message', [
    ('', 'multi30k_small', '--raw_dir=DIR is missing'),
    ('raw', 'multi30k', 'needs --init_from=DIR')])
def test_what_is_missing_is_named(tmp_path, raw_dir, name, message):
  options = stages.Options(tmp_path / 'run', tmp_path / 'data', 0, {})
  with pytest.raises(errors.UserError, match=message):
    multi30k.Multi30k(options, raw_dir, name=name, init_from='')
