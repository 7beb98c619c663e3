"""Every switch of a config that chooses a path, run from the loop's entrance.

On made-up records and a tiny model: whether a path can be taken at all, and
gives what its neighbour gives where both must agree.
"""

import json
import pathlib
import subprocess

import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax import config as config_lib
from m3p_jax import metrics
from m3p_jax import train
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import scoring
from tests import compiler
from tests import toy

# Held by the run's speed alone.
_TIMES = ('examples_per_second', 'step_seconds', 'read_seconds')
_PLAIN = dict(eval_batches=1)


def _losses(config, workdir):
  """Trains, and returns the lines of metrics.jsonl; all are finite."""
  train.train_and_evaluate(config, workdir)
  return _lines(workdir)


def _lines(workdir):
  lines = [{key: value for key, value in line.items() if key not in _TIMES}
           for line in metrics.read(workdir / 'metrics.jsonl')]
  assert np.isfinite([value for line in lines
                      for value in line.values()]).all()
  return lines


def _assert_close(found, wanted):
  assert len(wanted) >= 2
  for line, other in zip(found, wanted, strict=True):
    assert line == pytest.approx(other, rel=1e-3)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  """Returns the workdir and the lines of a run that reads from memory."""
  workdir = tmp_path_factory.mktemp('plain')
  return workdir, _losses(toy.config(**_PLAIN), workdir)


def test_two_hosts_that_read_records_give_the_same_losses(
    python, plain, tmp_path):
  config = toy.config(**_PLAIN, data__image_text__memory_bytes=0,
                       mesh__data=2, mesh__model=2)
  (tmp_path / 'config.json').write_text(
      json.dumps(config_lib.to_json(config)))
  address = compiler.free_address()
  processes = [subprocess.Popen(
      [python, 'main.py', f'--workdir={tmp_path}', '--num_processes=2',
       f'--coordinator={address}', f'--process_id={number}'],
      cwd=pathlib.Path(config_lib.__file__).parents[1],
      env=compiler.environment(2)) for number in range(2)]
  assert {process.wait(timeout=900) for process in processes} == {0}
  _assert_close(_lines(tmp_path), plain[1])


@pytest.mark.parametrize('changes', [
    dict(model__dtype='bfloat16', model__remat='projections',
         model__refiner_layers=1,
         model__match_head='first+product', model__caption_match=True,
         model__num_languages=1, model__decoder=True,
         model__normalise_regions=False,
         optimizer__schedule='constant', optimizer__warmup_steps=0),
    dict(model__remat='input', model__num_layers=3, model__dropout=0.1,
         model__attention_dropout=0.1, optimizer__schedule='cosine',
         accumulation_steps=2,
         optimizer__first_moment_dtype='bfloat16', optimizer__clip_norm=0.0,
         optimizer__weight_decay=0.1,
         optimizer__rate_factors=(('^tokens/', 0.0), ('^encoder/', 0.5)),
         data__image_text__datasets=('packed',),
         data__image_text__languages=('en',), data__image_text__shots=4,
         data__image_text__memory_bytes=0, data__image_text__alpha=1.0,
         data__image_text__code_switch__mode='one',
         data__image_text__code_switch__rate=1.0,
         data__image_text__code_switch__language_per='word',
         data__image_text__code_switch__sentence_rate=0.5,
         data__image_text__code_switch__shuffle_seed=1),
], ids=['model', 'optimizer and rows'])
def test_a_run_takes_the_path(tmp_path, changes):
  assert len(_losses(toy.config(**changes), tmp_path)) == 2


def test_every_objective_is_fitted_validated_and_traced(tmp_path):
  # The run ends before the trace would: what there is of it is kept.
  config = toy.config(
      ('masked_lm', {'stream': 'text'}), ('masked_lm', {}),
      ('masked_region', {}), ('matching', {'negatives': 'hard'}),
      ('contrastive', {}), ('region_alignment', {}),
      ('retrieval', {'num_candidates': 2, 'num_anchors': 2,
                     'softmax_weight': 1.0, 'add_dual_score': True,
                     'negatives': 'hard'}),
      data__text__concatenate=True, fit_first_values=True, eval_batches=1,
      eval_every_steps=6, best_metric='matching_image_text/accuracy',
      num_train_steps=12, profile_steps=5)
  validated = [line for line in _losses(config, tmp_path)
               if 'validation/masked_region_image_text/loss' in line]
  assert [line['step'] for line in validated] == [0, 6, 12]
  assert list((tmp_path / 'trace').rglob('*.trace.json.gz'))


def test_rows_longer_than_the_positions_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=(
      r'have \d+ regions and 16 tokens .*; allowed: 16 together')):
    train.train_and_evaluate(toy.config(model__max_positions=16), tmp_path)


def test_a_trace_that_would_never_begin_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match='trace begins after 10 steps'):
    train.train_and_evaluate(toy.config(profile_steps=5), tmp_path)


@pytest.mark.parametrize('mode', scoring.MODES)
def test_a_set_in_int8_is_searched_in_every_mode(plain, mode):
  config = toy.config(
      evaluation__mode=mode, evaluation__dataset='packed',
      evaluation__data_dir=str(toy.data_dir()), evaluation__languages=('en',),
      evaluation__split='train', evaluation__top_k=3,
      evaluation__joint_weight=0.5, evaluation__max_length=16)
  config.data.data_dir = 'not there'
  cell = retrieval.evaluate(config, plain[0])
  assert 0 <= cell['languages']['en']['mean_recall'] <= 100
