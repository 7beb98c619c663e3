"""Weights leave as they came: M3P, VOLTA, safetensors, StableHLO."""

import math
import subprocess
import sys

import jax
import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline.weights import pickles
from m3p_jax import checkpoint
from m3p_jax.convert import exporting
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from m3p_jax.convert import names
from m3p_jax.model import config as model_config
from tests import torch_files
from tests import weight_files


@pytest.fixture(scope='module')
def imported():
  return importing.read('m3p', weight_files.M3P)


@pytest.fixture(scope='module')
def folder(imported, tmp_path_factory):
  """Returns the checkpoint folder of the golden file."""
  path = tmp_path_factory.mktemp('import') / 'checkpoint'
  importing.write(imported, path, asked_languages=None)
  return path


@pytest.fixture
def torch():
  return pytest.importorskip('torch', reason='writes .pth')


def test_full_set_of_the_release():
  config = model_config.ModelConfig(num_region_classes=1600)
  shapes = layout.m3p_shapes(config)
  assert len(shapes) == 475
  tied = math.prod(shapes['pred_layer.proj.weight'])
  assert sum(map(math.prod, shapes.values())) - tied == 374_368_727
  assert {name.key for name in names.m3p(config)} <= set(shapes)


def test_m3p_comes_back_bit_for_bit(folder, tmp_path, torch):
  source = exporting.load(folder)
  exporting.write('m3p', source, tmp_path / 'a.pth')
  ours, theirs = (pickles.load_torch(path)['model']
                  for path in (tmp_path / 'a.pth', weight_files.M3P))
  assert set(ours) == set(theirs)
  for key, tensor in theirs.items():
    np.testing.assert_array_equal(ours[key], tensor, key)
  # It says its geometry itself: no config.json is needed.
  assert importing.read('m3p', tmp_path / 'a.pth').config == source.config
  # PyTorch reads the same.
  model = torch.load(tmp_path / 'a.pth', weights_only=True)['model']
  assert set(model) == set(theirs)
  for key, tensor in theirs.items():
    np.testing.assert_array_equal(model[key].numpy(), tensor, key)


def test_fresh_parts_have_the_shapes_of_the_release(imported, tmp_path):
  """A model that never was an M3P file gets the dead parts as well."""
  checkpoint.save_weights(
      tmp_path / 'ours', imported.params, imported.config, {})
  tensors, lines = exporting.m3p_tensors(exporting.load(tmp_path / 'ours'))
  shapes = layout.m3p_shapes(imported.config)
  assert {key: value.shape for key, value in tensors.items()} == shapes
  assert any(line.kind == 'fresh' and line.name.startswith('cross_alignment')
             for line in lines)
  assert any(line.kind == 'left out' and line.name.startswith('log_scale')
             for line in lines)


def test_safetensors_come_back_bit_for_bit(folder, tmp_path):
  source = exporting.load(folder)
  exporting.write('safetensors', source, tmp_path / 'out')
  back = importing.read('safetensors', tmp_path / 'out' / 'model.safetensors')
  assert back.config == source.config
  jax.tree.map(np.testing.assert_array_equal, back.params,
               layout.nested(source.params))


def test_without_torch_the_command_that_installs_it_is_told(
    folder, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(errors.UserError, match='pip install torch'):
    exporting.write('m3p', exporting.load(folder), tmp_path / 'a.pth')
  assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def volta(folder, tmp_path_factory):
  """Returns (what VOLTA's file of the golden weights holds, the report)."""
  pytest.importorskip('torch', reason='writes .pth')
  path = tmp_path_factory.mktemp('volta') / 'a.bin'
  lines = exporting.write('volta', exporting.load(folder), path)
  return pickles.load_torch(path), lines


def _read_volta(tensors, folder):
  torch_files.write_flat(folder / 'b.bin', tensors)
  (folder / 'config.json').write_text('{"num_attention_heads": 4}')
  return importing.read('volta', folder / 'b.bin')


def test_a_volta_file_comes_back(folder, volta, tmp_path):
  shared, lines = volta
  assert {line.name for line in lines if line.kind == 'left out'} >= {
      'token_bias', 'match/kernel', 'region_class/out/kernel'}
  extras = {'bert.pooler.dense.weight': np.ones((32, 32), np.float32),
            'clfs_dict.TASK8.bias': np.ones(1, np.float32),
            'bert.embeddings.image_distbution_embeddings.bias':
                np.ones(32, np.float32)}
  found = _read_volta({**shared, **extras}, tmp_path)
  assert set(found.unused) == set(extras)
  assert {line.name for line in found.lines if line.kind == 'fresh'
          } >= {'token_bias', 'match/kernel'}
  params, flat = exporting.load(folder).params, layout.flatten(found.params)
  for name in names.volta(found.config):
    np.testing.assert_array_equal(
        flat[name.path], params[name.path], name.path)
  importing.write(found, tmp_path / 'ours', asked_languages=None)
  exporting.write('volta', exporting.load(tmp_path / 'ours'),
                  tmp_path / 'c.bin')
  back = pickles.load_torch(tmp_path / 'c.bin')
  assert set(back) == set(shared)
  for key, tensor in shared.items():
    np.testing.assert_array_equal(back[key], tensor, key)


def test_volta_file_with_the_map_s_typo_is_read(volta, tmp_path):
  tensors = dict(volta[0])
  wrong, meant = names.volta_typo(weight_files.TINY)
  tensors[wrong] = tensors.pop(meant)
  back = _read_volta(tensors, tmp_path)
  np.testing.assert_array_equal(
      np.asarray(back.params['encoder']['attention']['out']['kernel'])[
          -1].reshape(32, 32),
      tensors[wrong].T)


_RUN_STABLEHLO = '''
import sys
import jax, numpy as np
from jax import export
assert not any(name.startswith('m3p_jax') for name in sys.modules)
with open(sys.argv[1], 'rb') as file:
  score = export.deserialize(bytearray(file.read()))
with np.load(sys.argv[2]) as inputs:
  logits = score.call(*(inputs[f'arr_{i}'] for i in range(5)))
np.save(sys.argv[3], logits)
'''


def test_stablehlo_runs_without_this_project(folder, tmp_path):
  source = exporting.load(folder)
  exporting.write('stablehlo', source, tmp_path / 'score')
  rng = np.random.default_rng(0)
  inputs = (rng.integers(4, 299, (5, 7)).astype(np.int32),
            np.arange(7)[None] < rng.integers(3, 8, (5, 1)),
            rng.normal(size=(5, 3, 2048)).astype(np.float32),
            rng.uniform(size=(5, 3, 5)).astype(np.float32),
            np.ones((5, 3), bool))
  np.savez(tmp_path / 'inputs.npz', *inputs)
  subprocess.run(
      [sys.executable, '-c', _RUN_STABLEHLO, 'score', 'inputs.npz', 'out.npy'],
      cwd=tmp_path, check=True)
  np.testing.assert_allclose(
      np.load(tmp_path / 'out.npy'), exporting.score_function(source)(*inputs),
      atol=1e-5)


def test_volta_counts_attention_and_mlp_as_layers(volta):
  """The key map of formats.md, 2.22, written out."""
  theirs = weight_files.tensors()
  pairs = {
      'bert.embeddings.word_embeddings': 'embeddings',
      'bert.embeddings.position_embeddings': 'position_embeddings',
      'bert.embeddings.LayerNorm': 'layer_norm_emb',
      'bert.embeddings.image_embeddings': 'image_embeddings.image_embeddings',
      'bert.embeddings.image_location_embeddings':
          'image_embeddings.image_location_embeddings',
      'bert.embeddings.v_LayerNorm': 'image_embeddings.LayerNorm',
      'bert.t_pooler.dense': 'pooled_layer.dense'}
  for i in range(2):
    attention, mlp = (f'bert.encoder.layer.{n}' for n in (2 * i, 2 * i + 1))
    pairs |= {
        f'{attention}.attention_self.query': f'attentions.{i}.q_lin',
        f'{attention}.attention_self.key': f'attentions.{i}.k_lin',
        f'{attention}.attention_self.value': f'attentions.{i}.v_lin',
        f'{attention}.attention_output.dense': f'attentions.{i}.out_lin',
        f'{attention}.attention_output.LayerNorm': f'layer_norm1.{i}',
        f'{mlp}.intermediate.dense': f'ffns.{i}.lin1',
        f'{mlp}.output.dense': f'ffns.{i}.lin2',
        f'{mlp}.output.LayerNorm': f'layer_norm2.{i}'}
  assert {key.rpartition('.')[0] for key in volta[0]} == set(pairs)
  for key, tensor in volta[0].items():
    part, _, kind = key.rpartition('.')
    np.testing.assert_array_equal(tensor, theirs[f'{pairs[part]}.{kind}'], key)


@pytest.mark.usefixtures('torch')
def test_another_geometry_comes_back_with_its_languages(tmp_path):
  theirs = weight_files.random_m3p(weight_files.OTHER, refiner_layers=2)
  torch_files.write_state_dict(tmp_path / 'a.pth', theirs, {
      'n_heads': 3, 'lang2id': 'ignored: no table'})
  found = importing.read('m3p', tmp_path / 'a.pth')
  importing.write(found, tmp_path / 'ours',
                  asked_languages=('en', 'de', 'fr', 'cs', 'ja'))
  source = exporting.load(tmp_path / 'ours')
  assert source.manifest['languages'] == ['en', 'de', 'fr', 'cs', 'ja']
  exporting.write('m3p', source, tmp_path / 'b.pth')
  back = pickles.load_torch(tmp_path / 'b.pth')['model']
  assert set(back) == set(theirs)
  for key, tensor in theirs.items():
    np.testing.assert_array_equal(back[key], tensor, key)
