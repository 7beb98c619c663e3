"""The opponent is the same model, and a ratio is what it says."""

import re

import jax
import numpy as np
from PIL import Image
import pytest

from benchmarks import collections
from benchmarks import contest
from benchmarks import input_pipeline
from benchmarks import on_accelerator
from benchmarks import ours
from benchmarks import problems
from benchmarks import report
from m3p_jax.model import config as model_config
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


@pytest.fixture
def few_words(monkeypatch):
  """Makes the tiny size's word table short; ids beyond it read its end.

  One layer without dropout, too: what is compiled takes the time here.
  """
  monkeypatch.setitem(problems.PROBLEMS, 'tiny', TINY._replace(model=dict(
      TINY.model, vocab_size=1_000, num_layers=1, dropout=0.0,
      attention_dropout=0.0)))


def test_a_few_photographs_make_a_collection_of_any_size(tmp_path):
  for name in 'ab':
    Image.effect_noise((90, 60), 80).save(tmp_path / f'{name}.jpg')
  photographs = sorted(tmp_path.glob('*.jpg'))
  contents = set()
  for number in range(9):
    collections.vary(tmp_path / 'x.jpg', number, photographs)
    with Image.open(tmp_path / 'x.jpg') as image:
      contents.add(image.convert('L').resize((90, 60)).tobytes())
  assert len(contents) == 9


def test_our_side_runs(few_words):
  del few_words
  runs = ours.training('tiny') | ours.scoring('tiny')
  runs['compile']()
  first, second = (runs['training step']()['loss'] for _ in range(2))
  assert np.isfinite(first) and first != second
  runs['exact scoring']()


def test_the_table_of_a_device_says_what_it_does_not_tell(
    few_words, monkeypatch, tmp_path):
  del few_words
  for name, value in dict(_RUNS=2, _STEPS=1).items():
    monkeypatch.setattr(on_accelerator, name, value)
  rows = on_accelerator.measure('tiny', minutes=60)
  found = {row.name: row for row in rows}
  golden = [row for name, row in found.items() if name.startswith('golden')]
  assert len(golden) == 2
  # Both formats are as near as allowed, float32 far nearer.
  assert all(row.ours <= row.theirs for row in golden)
  assert golden[0].ours < 0.1 * golden[1].ours
  for name in ('training step', 'exact scoring', 'indexing'):
    assert found[name].ours > 0
  report.write(rows, report.machine(), tmp_path)
  table = (tmp_path / 'table.md').read_text()
  # No peak of a CPU is known, and it does not tell its memory.
  assert re.search(r'share of the peak \| – +\| its plan at best \| –', table)
  assert re.search(r'memory of a device \| – GB \| its plan \| [\d.]+ GB',
                   table)
  assert 'nan' not in table
  # No minute is left: nothing is begun.
  assert not on_accelerator.measure('tiny', minutes=-1)


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
