"""Recipes: the drivers order, skip and resume their stages."""

import json
import pathlib
import types

import pytest

from configs import ablations
from configs import quickstart as quickstart_config
from input_pipeline import errors
from input_pipeline import sources
from m3p_jax import config as config_lib
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
  table = ablation.table(cells, ['de'], beside={'on': 'shuffled'})
  assert table.splitlines()[0] == (
      '| | en | 2 others | 1 with a dictionary | 1 without |')
  # By hand: de differs by 2 and 3, so s / √2 = 0.5, times t(.975, 1) = 12.706.
  assert '| on − off | +0.00 ± 0.00 | +1.50 ± 0.00 | +2.50 ± 6.35 |' in table
  assert '| off | 25.0 | 12.5 | 15.0 | 10.0 |' in table


@pytest.mark.parametrize('base', ablations.BASES)
@pytest.mark.parametrize('name', ablations.ANALYSES)
def test_variants_differ_in_what_they_name_alone(name, base, tmp_path):
  one = ablation.Ablation(_options(tmp_path), name=name, base=base)
  first, *others = one.analysis.variants
  for seed in (0, 3):
    expected = one.configs(first, seed)
    for config in expected.values():
      config_lib.check(config)
    for variant in others:
      for stage, config in one.configs(variant, seed).items():
        changed, before = (config_lib.flatten(one_config.to_dict())
                           for one_config in (config, expected[stage]))
        differing = {key for key in changed.keys() | before.keys()
                     if changed.get(key) != before.get(key)} - {'init_from'}
        named = {*one.analysis.variants[first], *one.analysis.variants[variant]}
        assert all(any(key == one_name or key.startswith(f'{one_name}.')
                       for one_name in named) for key in differing)
        assert config.seed == seed
  # No two variants train the same thing under two names.
  trained = [repr({stage: {**config.to_dict(), 'init_from': ''}
                   for stage, config in one.configs(variant, 0).items()})
             for variant in one.analysis.variants]
  assert len(set(trained)) == len(trained)


def test_variants_share_the_stages_that_are_the_same(tmp_path):
  one = ablation.Ablation(_options(tmp_path), name='objectives',
                          base='multi30k_small')
  starts = {seed: {one.configs(variant, seed)['pretrain'].init_from
                   for variant in one.analysis.variants
                   if variant != 'without the warm start'} for seed in (0, 1)}
  # What is left out of `pretrain` changes nothing of `names` before it.
  assert [len(found) for found in starts.values()] == [1, 1]
  assert not starts[0] & starts[1]
  one = ablation.Ablation(_options(tmp_path))
  starts = {one.configs(variant, 0)['en'].init_from
            for variant in one.analysis.variants}
  assert len(starts) == 3


def test_the_objectives_are_left_out_one_by_one(tmp_path):
  one = ablation.Ablation(_options(tmp_path), name='objectives')
  whole = set(one.configs('all', 0)['pretrain'].tasks)
  for variant, task in (('without xMLM', 'xmlm'), ('without MC-VLM', 'mc_vlm')):
    configs = one.configs(variant, 0)
    assert set(configs['pretrain'].tasks) == whole - {task}
    assert list(configs) == ['names', 'pretrain', 'en']
  cold = one.configs('without the warm start', 0)
  assert list(cold) == ['pretrain', 'en']
  assert cold['pretrain'].init_from == 'e5'


def test_every_language_that_a_variant_needs_gets_a_dictionary(tmp_path):
  one = ablation.Ablation(_options(tmp_path), name='languages',
                          base='multi30k_small')
  assert one.targets() == sorted(quickstart_config.DICTIONARIES)


def test_ablation_refuses_a_seed(tmp_path):
  with pytest.raises(errors.UserError, match=r'--config\.seed'):
    ablation.Ablation(_options(tmp_path, seed=1))


def _options(tmp_path, **overrides):
  return stages.Options(tmp_path / 'run', tmp_path / 'data', 0, overrides)


def test_ablation_runs_each_cell_once(tmp_path, monkeypatch, capsys):
  fakes = _Fakes(monkeypatch)
  monkeypatch.setattr(
      ablation.weights_lib, 'load', lambda path: types.SimpleNamespace(
          params=None, language_ids=None,
          config=types.SimpleNamespace(text_room=None)))
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

  def run():
    one = ablation.Ablation(_options(tmp_path, **{'optimizer.clip_norm': 2.0}))
    return one, one.run(2)

  fakes.fails_at = 'en'
  with pytest.raises(KeyboardInterrupt):
    run()
  one, content = run()
  # The first warm start is asked for again, and goes on from its end.
  trained = [(name.partition('-')[0], before.partition('-')[0], seed)
             for name, before, seed in (
                 what for what in fakes.log if what[0][:2] in ('na', 'en'))]
  assert len(trained) == 1 + 2 * 2 * 3
  assert trained[-1] == ('en', 'names', 1)
  assert {variant: set(cells) for variant, cells in content['cells'].items()
          } == {variant: {'0', '1'} for variant in ('off', 'on', 'shuffled')}
  assert not list(tmp_path.rglob('checkpoints'))
  assert '6 runs, each: names 200 steps' in capsys.readouterr().err
  done = len(fakes.log)
  assert run()[1] == content
  assert len(fakes.log) == done
  text = one.text(content)
  # One of four pictures is found: 25 %, and 0 to 75 in 95 % of the draws.
  assert '| off | 25.0 (0.0–75.0) |' in text
  assert '| on − off | +0.00 ± 0.00, p 1 |' in text
  assert '| on − shuffled | +0.00' in text
  assert '2 seeds' in text
  assert 'steps (rows a step: contrastive ' in text
  for key, value in (('optimizer.clip_norm', 3.0),
                     ('evaluation.split', 'validation')):
    one = ablation.Ablation(_options(tmp_path, **{key: value}))
    with pytest.raises(errors.UserError, match='other settings'):
      one.run(2)


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
    fetch = quickstart.sources.fetch
    monkeypatch.setattr(  # The tokenizer's is real, whoever asks first.
        quickstart.sources, 'fetch',
        lambda name: None if name == 'package' else fetch(name))
    monkeypatch.setattr(stages.prepare, 'prepare', self.prepare)
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
