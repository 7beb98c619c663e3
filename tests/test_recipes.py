"""Recipes: the drivers order, skip and resume their stages."""

import json
import pathlib
import types

import pytest

from configs import quickstart as quickstart_config
from input_pipeline import errors
from input_pipeline import sources
from m3p_jax.recipes import ablation
from m3p_jax.recipes import quickstart
from m3p_jax.recipes import stages
from tests import test_statistics


def test_ablation_table_pairs_the_seeds():
  def cell(en, de, zu):
    return {'mean_recall': {'en': en, 'de': de, 'zu': zu}}

  cells = {'off': {'0': cell(30, 10, 10), '1': cell(20, 20, 10)},
           'on': {'0': cell(30, 12, 11), '1': cell(20, 23, 10)},
           'shuffled': {'0': cell(29, 10, 10), '1': cell(19, 20, 10)}}
  table = ablation.table(cells, ['de'])
  assert table.splitlines()[0] == (
      '| code-switching | en | 2 others | 1 with a dictionary | 1 without |')
  # By hand: de differs by 2 and 3, so s / √2 = 0.5, times t(.975, 1) = 12.706.
  assert '| on − off | +0.00 ± 0.00 | +1.50 ± 0.00 | +2.50 ± 6.35 |' in table
  assert '| off | 25.0 | 12.5 | 15.0 | 10.0 |' in table


def test_arms_differ_in_their_dictionary_alone():
  assert ablation.STAGES[-1] == 'ablation_en'
  for stage in ablation.STAGES:
    off, on, shuffled = (
        stages.settings_of(ablation.Run(arm, 3).config(stage).to_dict())
        for arm in ablation.ARMS)
    switch = 'data.image_text.code_switch.'
    assert off | {f'{switch}rate': on[f'{switch}rate']} == on
    assert shuffled | {f'{switch}shuffle_seed': -1} == on
    assert off[f'{switch}rate'] == 0 < on[f'{switch}rate']
    assert shuffled[f'{switch}shuffle_seed'] >= 0


def test_ablation_refuses_a_seed(tmp_path):
  with pytest.raises(errors.UserError, match=r'--config\.seed'):
    ablation.run(tmp_path, tmp_path, num_seeds=2, overrides={'seed': 1})


def test_ablation_runs_each_cell_once(tmp_path, monkeypatch):
  fakes = _Fakes(monkeypatch)
  monkeypatch.setattr(
      ablation, 'STAGES', ('ablation_pretrain', 'ablation_en'))
  monkeypatch.setattr(
      ablation.quickstart, 'get_config',
      lambda name, get=quickstart_config.get_config: get(
          name.removeprefix('ablation_')))
  monkeypatch.setattr(
      ablation.weights_lib, 'load', lambda path: types.SimpleNamespace(
          params=None, language_ids=None,
          config=types.SimpleNamespace(max_positions=64)))
  monkeypatch.setattr(ablation.weights_lib, 'check_data', lambda *args: None)
  monkeypatch.setattr(
      ablation.evaluation_set, 'load', lambda *args, **kwargs: None)
  names = ('en', 'de', 'zu')
  queries = test_statistics.language([1, 99, 99, 99])
  monkeypatch.setattr(
      ablation.scoring, 'make_scorer', lambda *args, **kwargs: None)
  monkeypatch.setattr(
      ablation.scoring, 'run', lambda *args, **kwargs: types.SimpleNamespace(
          languages={name: {'mean_recall': 25.0} for name in names},
          queries={name: queries for name in names}))
  arguments = dict(num_seeds=2, overrides={'optimizer.clip_norm': 2.0})
  fakes.fails_at = 'ablation_en'
  with pytest.raises(KeyboardInterrupt):
    ablation.run(tmp_path / 'run', tmp_path / 'data', **arguments)
  content = ablation.run(tmp_path / 'run', tmp_path / 'data', **arguments)
  # The first pre-training is asked for again, and goes on from its end.
  trained = [what for what in fakes.log if what[0].startswith('ablation')]
  assert len(trained) == 1 + 2 * 2 * 3
  assert trained[-1][:2] == ('ablation_en', 'ablation_pretrain')
  assert {arm: set(cells) for arm, cells in content['cells'].items()} == {
      arm: {'0', '1'} for arm in ablation.ARMS}
  assert not list(tmp_path.rglob('checkpoints'))
  done = len(fakes.log)
  again = ablation.run(tmp_path / 'run', tmp_path / 'data', **arguments)
  assert again == content
  assert len(fakes.log) == done
  text = ablation.text(content, tmp_path / 'run')
  # One of four pictures is found: 25 %, and 0 to 75 in 95 % of the draws.
  assert '| off | 25.0 (0.0–75.0) |' in text
  assert '| on − off | +0.00 ± 0.00, p 1 |' in text
  assert '2 seeds' in text
  assert 'steps (rows a step: contrastive ' in text
  arguments['overrides'] = {'optimizer.clip_norm': 3.0}
  with pytest.raises(errors.UserError, match='other settings'):
    ablation.run(tmp_path / 'run', tmp_path / 'data', **arguments)


def test_top_k_stays_in_the_budget():
  queries = 1000
  seconds = quickstart.BUDGET_SECONDS / (5 * queries)
  assert quickstart.affordable(queries, seconds) == [1, 2, 3, 5]
  # However slow the machine is, the joint encoder gets a chance.
  assert quickstart.affordable(queries, 1e6) == [1]


def test_every_download_is_a_known_source():
  needed = quickstart.needed_sources()
  assert len(needed) == len(set(needed)) > len(quickstart_config.DICTIONARIES)
  assert set(needed) <= set(sources.SOURCES)


def test_newest_checkpoint_becomes_the_only_one(tmp_path):
  for step in (9, 10):
    (tmp_path / 'all' / str(step) / 'params').mkdir(parents=True)
    (tmp_path / 'all' / str(step) / 'params' / 'x').write_text(f'{step}')
  target = tmp_path / 'checkpoints'
  for _ in range(2):
    quickstart.link_newest(tmp_path / 'all', target)
  assert [path.name for path in target.iterdir()] == ['10']
  assert (target / '10' / 'params' / 'x').read_text() == '10'
  assert not list(tmp_path.glob('.*'))


class _Fakes:
  """Stands in for data, training and evaluation, and notes what is asked."""

  def __init__(self, monkeypatch):
    self.log = []
    self.fails_at = ''
    monkeypatch.setattr(stages.gc, 'collect', lambda: None)  # Seconds in all.
    monkeypatch.setattr(quickstart, 'needed_sources', lambda: ['package'])
    monkeypatch.setattr(quickstart.sources, 'fetch', lambda name: None)
    monkeypatch.setattr(quickstart.prepare, 'prepare', self.prepare)
    monkeypatch.setattr(quickstart.dictionaries, 'build', self.build)
    monkeypatch.setattr(stages.train, 'train_and_evaluate', self.train)
    monkeypatch.setattr(quickstart.retrieval, 'evaluate', self.evaluate)
    monkeypatch.setattr(quickstart, 'choose_rerank', self.choose)
    monkeypatch.setattr(quickstart.report, 'write', self.report)

  def note(self, *what):
    if what[0] == self.fails_at:
      self.fails_at = ''
      raise KeyboardInterrupt
    self.log.append(what)

  def prepare(self, name, data_dir, *, limit, languages):
    self.note(f'prepare {name}', limit, languages)
    (pathlib.Path(data_dir) / name).mkdir(parents=True)

  def build(self, languages, data_dir):
    self.note('dictionaries', len(languages))
    folder = pathlib.Path(data_dir) / quickstart.dictionaries.FOLDER
    folder.mkdir(parents=True)

  def train(self, config, workdir):
    before = pathlib.Path(config.init_from)
    self.note(workdir.name, before.parent.name or config.init_from,
              config.seed)
    (workdir / 'checkpoints' / '7').mkdir(parents=True, exist_ok=True)
    (workdir / 'config.json').write_text(
        json.dumps({'seed': config.seed, 'init_from': config.init_from}))

  def evaluate(self, config, workdir):
    c = config.evaluation
    self.note(f'{c.mode} {config.setting}',
              pathlib.Path(config.init_from).parent.name)
    name = 'retrieval.json' if c.mode == 'dual' else 'retrieval_rerank.json'
    (workdir / name).write_text('{}')

  def choose(self, config, path):
    self.note(f'choose {config.setting}')
    path.write_text(json.dumps({'top_k': 5, 'joint_weight': 0.5}))

  def report(self, workdir):
    self.note('report')


ORDER = ['prepare tux_paint', 'prepare emoji', 'prepare openclipart',
         'prepare udhr', 'dictionaries', 'warm_start', 'pretrain', 'en', 'all',
         'dual no_finetune', 'dual en', 'dual all', 'choose all', 'rerank all',
         'report']


def _quickstart(tmp_path):
  return quickstart.Quickstart(
      tmp_path / 'run', tmp_path / 'data', overrides={'seed': 4})


def test_quickstart_runs_its_stages_in_order(tmp_path, monkeypatch):
  fakes = _Fakes(monkeypatch)
  _quickstart(tmp_path).run()
  assert [what[0] for what in fakes.log] == ORDER
  assert ('warm_start', 'e5', 4) in fakes.log
  assert ('pretrain', 'warm_start', 4) in fakes.log
  assert ('en', 'pretrain', 4) in fakes.log
  assert ('all', 'pretrain', 4) in fakes.log
  assert ('dual no_finetune', 'pretrain') in fakes.log
  assert ('rerank all', 'all') in fakes.log
  final = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert final == {'seed': 4, 'init_from': ''}
  assert (tmp_path / 'run' / 'checkpoints' / '7').is_dir()


@pytest.mark.parametrize('stage', ['prepare emoji', 'pretrain', 'dual en'])
def test_quickstart_goes_on_where_it_was_stopped(tmp_path, monkeypatch, stage):
  fakes = _Fakes(monkeypatch)
  fakes.fails_at = stage
  with pytest.raises(KeyboardInterrupt):
    _quickstart(tmp_path).run()
  _quickstart(tmp_path).run()
  names = [what[0] for what in fakes.log]
  # Evaluation is one stage: it starts over, minutes of training do not.
  assert [name for name in names if 'dual' not in name] == [
      name for name in ORDER if 'dual' not in name]
  done = len(names)
  _quickstart(tmp_path).run()
  assert [what[0] for what in fakes.log[done:]] == ['report']


def test_rerank_adds_the_other_settings_only(tmp_path, monkeypatch):
  fakes = _Fakes(monkeypatch)
  _quickstart(tmp_path).run()
  done = len(fakes.log)
  _quickstart(tmp_path).run(rerank_all=True)
  assert [what[0] for what in fakes.log[done:]] == [
      'choose no_finetune', 'rerank no_finetune', 'choose en', 'rerank en',
      'report']


def test_quickstart_refuses_another_seed_in_the_same_folder(
    tmp_path, monkeypatch):
  fakes = _Fakes(monkeypatch)
  _quickstart(tmp_path).run()
  done = len(fakes.log)
  other = quickstart.Quickstart(
      tmp_path / 'run', tmp_path / 'data', overrides={'seed': 5})
  with pytest.raises(errors.UserError, match='seed 4, now 5'):
    other.run()
  assert len(fakes.log) == done
