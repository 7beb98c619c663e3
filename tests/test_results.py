"""Files of results: cells are replaced one by one, and never mixed."""

import json

import pytest

from input_pipeline import errors
from m3p_jax.evaluation import results

HEADER = {'protocol': 'tux-paint', 'dataset': 'tux_paint', 'split': 'test'}


def language(recall, pairs=10):
  recalls = {'r1': recall, 'r5': recall, 'r10': recall}
  return {'text_to_image': recalls, 'image_to_text': recalls,
          'mean_recall': recall, 'chance': 4.0, 'num_images': 139,
          'num_captions': 125, 'pairs_scored': pairs}


def cell(step=1, trained=('en',), **recalls):
  return {'step': step, 'checkpoint': f'checkpoints/{step}',
          'pairs_scored': 10 * len(recalls), 'seconds': 1.0,
          'trained_languages': list(trained), 'seed': 0, 'parameters': 1000,
          'run': {'command': 'python main.py', 'machine': 'a computer',
                  'commit': 'abc', 'date': '2026-01-01',
                  'versions': {'jax': '1'}},
          'languages': {name: language(recall)
                        for name, recall in recalls.items()}}


def test_only_computed_cells_are_replaced(tmp_path):
  results.update(tmp_path, HEADER, 'dual', 'en', cell(en=40., de=20.))
  results.update(tmp_path, HEADER, 'dual', 'all', cell(en=50.))
  path = results.update(tmp_path, HEADER, 'dual', 'en', cell(de=30.))
  content = json.loads(path.read_text())
  assert path.name == 'retrieval.json'
  assert {key: content[key] for key in HEADER} == HEADER
  recalls = {
      setting: {name: one['mean_recall'] for name, one
                in content['settings'][setting]['languages'].items()}
      for setting in content['settings']}
  assert recalls == {'en': {'en': 40., 'de': 30.}, 'all': {'en': 50.}}
  assert content['settings']['en']['pairs_scored'] == 20


def test_cells_of_other_weights_say_so(tmp_path):
  results.update(tmp_path, HEADER, 'dual', 'en', cell(step=1, en=40., de=20.))
  results.update(tmp_path, HEADER, 'dual', 'en', cell(step=2, de=30.))
  setting = results.read(tmp_path / 'retrieval.json')['settings']['en']
  assert setting['step'] == 2
  assert setting['languages']['en']['step'] == 1
  assert setting['languages']['en']['checkpoint'] == 'checkpoints/1'
  assert 'step' not in setting['languages']['de']


def test_other_modes_and_sets_land_beside(tmp_path):
  other = HEADER | {'split': 'validation'}
  for header, mode, name in (
      (HEADER, 'dual', 'retrieval.json'),
      (HEADER, 'rerank', 'retrieval_rerank.json'),
      (HEADER, 'dual', 'retrieval.json'),
      (other, 'dual', 'retrieval_tux_paint_validation.json'),
      (other, 'joint', 'retrieval_tux_paint_validation_joint.json')):
    path = results.update(tmp_path, header, mode, 'all', cell(en=1.))
    assert path.name == name
    assert json.loads(path.read_text())['mode'] == mode


def test_the_configs_own_mode_owns_the_file(tmp_path):
  (tmp_path / 'config.json').write_text('{"evaluation": {"mode": "dual"}}')
  assert results.path_for(
      tmp_path, HEADER, 'rerank').name == 'retrieval_rerank.json'
  assert results.path_for(tmp_path, HEADER, 'dual').name == 'retrieval.json'


def test_a_broken_file_is_named_and_kept(tmp_path):
  path = tmp_path / 'retrieval.json'
  path.write_text('{"settings": ')
  with pytest.raises(errors.UserError, match=r'retrieval\.json'):
    results.update(tmp_path, HEADER, 'dual', 'all', cell(en=1.))
  assert path.read_text() == '{"settings": '


def test_no_draft_is_left(tmp_path):
  results.update(tmp_path, HEADER, 'dual', 'all', cell(en=1.))
  assert [path.name for path in tmp_path.iterdir()] == ['retrieval.json']


def test_summary_groups_languages_by_what_was_trained_on():
  content = results.merge({}, HEADER, 'dual', 'en', cell(
      en=40., de=20., fr=22., ko=10.))
  content = results.merge(content, HEADER, 'dual', 'all', cell(
      trained=('en', 'de', 'fr'), en=45., de=30., fr=34., ko=15.))
  assert results.language_groups(content) == {
      'en': ['en'], 'supervised': ['de', 'fr'], 'held out': ['ko']}
  assert '| all | 45.0 | 32.0 | 15.0 |' in results.summary(content)
  assert '| chance | 4.0 | 4.0 | 4.0 |' in results.summary(content)


def test_a_mean_over_a_missing_language_is_none():
  assert results.mean(cell(en=1.), ['en', 'de']) is None


@pytest.mark.parametrize('what', ['weights', 'data'])
def test_others_at_the_same_path_are_told(tmp_path, what):
  results.update(tmp_path, HEADER, 'dual', 'en', cell(en=40., de=20.) | {
      'weights': 'w', 'data': 'd'})
  results.update(tmp_path, HEADER, 'dual', 'en', cell(de=30.) | {
      'weights': 'w', 'data': 'd'} | {what: 'others'})
  languages = results.read(
      tmp_path / 'retrieval.json')['settings']['en']['languages']
  assert languages['en'][what] == what[0]
  assert what not in languages['de']
