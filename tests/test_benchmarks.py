"""The opponent is the same model, and a ratio is what it says."""

import functools
import re

from flax import linen as nn
import jax
import numpy as np
import pytest

from benchmarks import contest
from benchmarks import contests
from benchmarks import input_pipeline
from benchmarks import ours
from benchmarks import problems
from benchmarks import report
from benchmarks import two_stage
from m3p_jax import startup
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from m3p_jax.planning import hlo_cost
from tests import models

TINY = problems.PROBLEMS['tiny']


def test_ratio_is_of_medians_with_quartiles_of_neighbours():
  ratio = contest.compare([1.0, 2.0, 1.0, 1.0, 1.0],
                          [3.0, 2.0, 3.0, 4.0, 3.0])
  assert (ratio.value, ratio.low, ratio.high) == (3.0, 3.0, 3.0)
  assert (ratio.ours, ratio.other, ratio.runs) == (1.0, 3.0, 5)


def test_table_says_what_is_missed():
  ratio = contest.compare([2.0, 2.0], [3.0, 3.0])
  rows = [report.rate(f'step, {size}', 'that', ratio, count=6, unit='rows/s',
                      wanted=wanted, note='of all')
          for size, wanted in (('small', 1.2), ('base', 2.0))]
  table = report.markdown(rows, report.machine())
  assert table.count('- step: of all') == 1
  assert '| step, small | 3 rows/s | that | 2 rows/s | 1.50 |' in table
  assert '≥ 1.2 ✓' in table and '≥ 2 ✗' in table


def test_flops_are_those_of_the_traced_model():
  model = m3p.M3P(model_config.geometry(TINY.model))
  params = jax.eval_shape(lambda key: nn.unbox(m3p.init_params(
      model.config, key)), jax.random.key(0))
  rows = ours.as_batch(problems.make_rows(TINY, 1, seed=0))
  position_BP = np.zeros((1, 2), np.int32)
  length = TINY.num_regions + TINY.text_length
  embedding = 2 * TINY.num_regions * TINY.model['region_feature_dim'] * (
      TINY.model['width'])
  boxes = 2 * TINY.num_regions * 5 * TINY.model['width']
  traced = hlo_cost.traced_flops(jax.make_jaxpr(nn.apply(
      lambda model: model.encode(rows, read=position_BP), model))(
          {'params': params}, rngs={'dropout': jax.random.key(0)}))
  assert traced == pytest.approx(
      problems.encoder_flops(TINY, length, 2) + embedding + boxes, rel=1e-6)


def test_what_ours_leaves_out_is_told():
  problem = problems.PROBLEMS['base']
  # All of the last layer's products, but for keys and values.
  most = 1 / problem.model['num_layers']
  for note in (contests.training_note('base'), contests.scoring_note('base')):
    (share,) = re.findall(r'leaves out ([\d.]+)%', note)
    assert 0.6 * most < float(share) / 100 < most
  assert problems.encoder_flops(problem, 9, 9) == (
      problems.encoder_flops(problem, 9, None))


@pytest.fixture
def few_words(monkeypatch):
  """Makes the tiny size's word table short; ids beyond it read its end."""
  monkeypatch.setitem(problems.PROBLEMS, 'tiny', TINY._replace(
      model=dict(TINY.model, vocab_size=1_000)))


def test_our_side_runs(few_words):
  del few_words
  runs = ours.training('tiny') | ours.scoring('tiny')
  runs['compile']()
  first, second = (runs['training step']()['loss'] for _ in range(2))
  assert np.isfinite(first) and first != second
  runs['exact scoring']()


def test_both_ways_of_retrieval_run(few_words, monkeypatch):
  del few_words
  for name, value in dict(
      SIZE='tiny', GALLERIES=(12, 24), _EXACT=12, _QUERIES=2, _EXACT_QUERIES=1,
      _TOP_K=3).items():
    monkeypatch.setattr(two_stage, name, value)
  runs = two_stage.variants()
  assert list(runs) == ['exact', '12', '24']
  for run in runs.values():
    run()


def test_pipelines_run(tmp_path, monkeypatch):
  for name, value in dict(
      _BATCH_SIZE=4, _BATCHES=2, _MADE_AHEAD=1).items():
    monkeypatch.setattr(input_pipeline, name, value)
  input_pipeline.make_data(tmp_path, 8, 128)
  timings = {'loader': [contest.Timing(1.0, 1.0, {})]}
  for name in input_pipeline._SOURCES:
    (run,) = input_pipeline.source(str(tmp_path), name).values()
    numbers = run()
    assert numbers['rows'] in (8, 128) and numbers['seconds'] > 0
    timings[name] = [contest.Timing(1.0, 1.0, numbers)]
  assert [row.other for row in input_pipeline.rows(timings, 'loader')] == [
      'loader', 'loader', 'plain read of pictures', 'streamed',
      'plain read of records of text']


def test_a_steps_flops_are_those_of_its_losses():
  problem = problems.PROBLEMS['base']
  model = m3p.M3P(model_config.geometry(problem.model))
  params = nn.unbox(m3p.abstract_params(model.config))
  key, forward = jax.random.key(0), 0.0
  for task in startup.make_tasks(ours.task_configs(problem)):
    rows = jax.tree.map(jax.numpy.asarray, ours.as_batch(
        problems.make_rows(problem, problem.task_rows, seed=0),
        with_regions=task.name != 'xmlm'))
    loss = functools.partial(task.loss, batch=rows, key=key)
    forward += hlo_cost.traced_flops(jax.make_jaxpr(nn.apply(loss, model))(
        {'params': params}, rngs={'dropout': key}))
  # Not counted: the boxes' and the heads' small maps.
  assert 1 < 3 * forward / problems.training_flops(problem) < 1.002


@pytest.fixture(scope='module')
def opponent():
  """Returns (PyTorch's model with our weights, our parameters, rows)."""
  torch = pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from benchmarks.against_pytorch import model as model_lib
  params = jax.tree.map(np.asarray, models.tiny()[1])
  model = model_lib.M3P(TINY).eval()
  state = model.state_dict()

  def put(name, value):
    value = np.asarray(value).reshape(state[name].shape)
    state[name].copy_(torch.from_numpy(value.copy()))

  def linear(name, part, outputs):
    kernel = part['kernel']
    put(f'{name}.weight', kernel.reshape(-1, outputs).T)
    put(f'{name}.bias', part['bias'])

  def norm(name, part):
    put(f'{name}.weight', part['scale'])
    put(f'{name}.bias', part['bias'])

  put('words.weight', params['tokens']['embedding'][:model_lib.VOCAB_SIZE])
  put('token_bias', params['token_bias'][:model_lib.VOCAB_SIZE])
  positions = np.array(params['positions']['embedding'])
  state['positions.weight'][:len(positions)] = torch.from_numpy(positions)
  norm('embedding_norm', params['embedding_norm'])
  linear('region_feature', params['region_embedding']['feature'], 16)
  linear('region_box', params['region_embedding']['box'], 16)
  norm('region_norm', params['region_embedding']['norm'])
  for name, size in (('pooler', 16), ('match', 1), ('region_regression', 12)):
    linear(name, params[name], size)
  for name, size in (('dense', 16), ('out', 7)):
    linear(f'class_{name}', params['region_class'][name], size)
  norm('class_norm', params['region_class']['norm'])
  for i in range(2):
    layer = jax.tree.map(lambda x, i=i: x[i], params['encoder'])
    prefix = f'encoder.layer.{i}.'
    for name in ('query', 'key', 'value'):
      linear(f'{prefix}attention.self.{name}', layer['attention'][name], 16)
    linear(f'{prefix}attention.output.dense', layer['attention']['out'], 16)
    norm(f'{prefix}attention.output.LayerNorm', layer['attention_norm'])
    linear(f'{prefix}intermediate.dense', layer['mlp']['inner'], 32)
    linear(f'{prefix}output.dense', layer['mlp']['outer'], 16)
    norm(f'{prefix}output.LayerNorm', layer['mlp_norm'])
  rows = problems.make_rows(TINY, 4, seed=0)
  from benchmarks.against_pytorch import training
  return model, params, rows, training.as_tensors(rows)


def test_opponent_is_the_same_model(opponent):
  model, params, rows, tensors = opponent
  batch = ours.as_batch(rows)
  encoded = models.call(
      lambda module: module.encode(batch, deterministic=True), params=params)
  hidden = model.encode(
      *(tensors[name] for name in (
          'token_ids_BL', 'text_mask_BL', 'features_BRF', 'boxes_BRG')))
  np.testing.assert_allclose(
      hidden.detach().numpy(), np.concatenate(
          [encoded.regions_BRD, encoded.text_BLD], axis=1), atol=2e-5)
  np.testing.assert_allclose(
      model.match_logits(hidden).detach().numpy(), models.call(
          lambda module: module.match_logits(encoded), params=params),
      atol=2e-5)
  np.testing.assert_allclose(
      model.token_logits(hidden[:, -1]).detach().numpy(), models.call(
          lambda module: module.token_logits(encoded.text_BLD[:, -1:]),
          params=params)[:, 0, :250_002], atol=2e-5)
  np.testing.assert_allclose(
      model.region_class_logits(hidden[:, 0]).detach().numpy(), models.call(
          lambda module: module.region_class_logits(
              encoded.regions_BRD[:, :1]), params=params)[:, 0], atol=2e-5)


def test_opponent_runs():
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from benchmarks.against_pytorch import scoring
  from benchmarks.against_pytorch import training
  for run in (training.variants('tiny', ('eager float32',))
              | scoring.variants('tiny')).values():
    run()


def test_geometries_are_valid():
  for problem in problems.PROBLEMS.values():
    geometry = model_config.geometry(problem.model)
    assert problem.num_regions + problem.text_length <= geometry.max_positions
