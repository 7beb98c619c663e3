"""Weights of other projects: what they give here is what they gave there."""

import dataclasses
import json
import math
import pathlib
import pickle
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import torch_file
from m3p_jax import checkpoint
from m3p_jax.convert import assembly
from m3p_jax.convert import check
from m3p_jax.convert import exporting
from m3p_jax.convert import importing
from m3p_jax.convert import m3p_shapes
from m3p_jax.convert import names
from m3p_jax.convert import output
from m3p_jax.convert import torch_writer
from m3p_jax.model import config as model_config

_GOLDEN = pathlib.Path(__file__).parent / 'golden'
_M3P = _GOLDEN / 'm3p_small' / 'checkpoint.pth'
_TINY = model_config.ModelConfig(
    vocab_size=300, width=32, num_heads=4, mlp_width=128, num_layers=2,
    num_languages=1, num_region_classes=1600, region_feature_dim=2048,
    embedding_dim=8)


@pytest.fixture(scope='module')
def imported():
  return importing.read('m3p', _M3P)


@pytest.fixture(scope='module')
def folder(imported, tmp_path_factory):
  """Returns the checkpoint folder of the golden file."""
  path = tmp_path_factory.mktemp('import') / 'checkpoint'
  importing.write(imported, path, asked_languages=None)
  return path


def _write(path, tensors, options=None, geometry=True):
  torch_writer.write(path, tensors, options or {})
  if geometry:
    shutil.copy(_M3P.with_name('config.json'), path.with_name('config.json'))
  return path


def _tensors():
  model = torch_file.load(_M3P)['model']
  return {key.removeprefix('module.'): np.array(value)
          for key, value in model.items()}


@pytest.mark.parametrize(('kind', 'name', 'file'), [
    ('m3p', 'm3p_small', 'checkpoint.pth'),
    ('m3p', 'm3p_small_legacy', 'checkpoint.pth'),
    ('xlmr', 'xlmr_small', 'model.safetensors'),
    ('xlmr', 'xlmr_small', 'pytorch_model.bin')])
def test_outputs_equal_the_reference_implementations(kind, name, file):
  lines = check.run(kind, _GOLDEN / name / file, _GOLDEN / name)
  assert lines
  assert not [str(line) for line in lines if not line.passes]


def test_check_sees_a_difference_and_an_array_without_counterpart(tmp_path):
  source = _GOLDEN / 'xlmr_small'
  shutil.copy(source / 'inputs.npz', tmp_path)
  with np.load(source / 'outputs.npz') as archive:
    outputs = dict(archive)
  outputs['last_hidden_state'][0, 0, 0] += 1e-3
  outputs['another'] = np.zeros(3, np.float32)
  np.savez(tmp_path / 'outputs.npz', **outputs)
  lines = {line.name: line for line in check.run(
      'xlmr', source / 'model.safetensors', tmp_path)}
  assert lines['embedding_output'].passes
  assert not lines['last_hidden_state'].passes
  assert not lines['another'].passes
  assert 'no counterpart' in str(lines['another'])


def test_full_set_of_the_release():
  config = model_config.ModelConfig(num_region_classes=1600)
  shapes = m3p_shapes.of(config)
  assert len(shapes) == 475
  tied = math.prod(shapes['pred_layer.proj.weight'])
  assert sum(map(math.prod, shapes.values())) - tied == 374_368_727
  assert {name.key for name in names.m3p(config)} <= set(shapes)


def test_m3p_comes_back_bit_for_bit(folder, tmp_path):
  source = exporting.load(folder)
  exporting.write('m3p', source, tmp_path / 'a.pth')
  ours, theirs = (torch_file.load(path)['model']
                  for path in (tmp_path / 'a.pth', _M3P))
  assert set(ours) == set(theirs)
  for key, tensor in theirs.items():
    np.testing.assert_array_equal(ours[key], tensor, key)
  # It says its geometry itself: no config.json is needed.
  assert importing.read('m3p', tmp_path / 'a.pth').config == source.config


def test_torch_reads_the_exported_file_strictly(folder, tmp_path):
  torch = pytest.importorskip('torch')
  source = exporting.load(folder)
  exporting.write('m3p', source, tmp_path / 'a.pth')
  model = torch.load(tmp_path / 'a.pth', weights_only=True)['model']
  assert {key.removeprefix('module.'): tuple(tensor.shape)
          for key, tensor in model.items()} == m3p_shapes.of(
              source.config, refiner_layers=1)
  for key, tensor in torch.load(_M3P, weights_only=True)['model'].items():
    assert torch.equal(tensor, model[key]), key


def test_fresh_parts_have_the_shapes_of_the_release(imported, tmp_path):
  """A model that never was an M3P file gets the dead parts as well."""
  checkpoint.save_weights(
      tmp_path / 'ours', imported.params, imported.config, {})
  tensors, lines = exporting.m3p_tensors(exporting.load(tmp_path / 'ours'))
  shapes = m3p_shapes.of(imported.config)
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
               assembly.nested(source.params))


def test_volta_comes_back_on_the_parts_that_it_has(folder, tmp_path):
  source = exporting.load(folder)
  lines = exporting.write('volta', source, tmp_path / 'a.bin')
  assert {line.name for line in lines if line.kind == 'left out'} >= {
      'token_bias', 'match/kernel', 'region_class/out/kernel'}
  (tmp_path / 'config.json').write_text('{"num_attention_heads": 4}')
  back = importing.read('volta', tmp_path / 'a.bin')
  written = {name.path for name in names.volta(source.config)}
  flat = exporting.layout.flatten(back.params)
  for path in written:
    np.testing.assert_array_equal(flat[path], source.params[path], path)
  assert {line.name for line in back.lines if line.kind == 'fresh'
          } >= {'token_bias', 'match/kernel'}


def test_volta_file_with_the_map_s_typo_is_read(folder, tmp_path):
  exporting.write('volta', exporting.load(folder), tmp_path / 'a.bin')
  tensors = torch_file.load(tmp_path / 'a.bin')
  wrong, meant = names.volta_typo(_TINY)
  tensors[wrong] = tensors.pop(meant)
  tensors['clfs_dict.TASK8.weight'] = np.ones((1, 32), np.float32)
  torch_writer.write_flat(tmp_path / 'b.bin', tensors)
  (tmp_path / 'config.json').write_text('{"num_attention_heads": 4}')
  back = importing.read('volta', tmp_path / 'b.bin')
  np.testing.assert_array_equal(
      back.params['encoder']['attention']['out']['kernel'][-1].reshape(32, 32),
      tensors[wrong].T)
  assert 'clfs_dict.TASK8.weight' in back.unused


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


def test_xlmr_positions_are_shifted_and_fresh_rows_listed(tmp_path):
  path = _GOLDEN / 'xlmr_small' / 'model.safetensors'
  found = importing.read('xlmr', path)
  from safetensors import numpy as safetensors_numpy
  theirs = safetensors_numpy.load_file(path)
  rows = theirs['roberta.embeddings.position_embeddings.weight']
  kind = theirs['roberta.embeddings.token_type_embeddings.weight']
  np.testing.assert_array_equal(
      found.params['positions']['embedding'][:-2], rows[2:] + kind[0])
  assert found.config.layer_norm_epsilon == 1e-5
  assert any(line.kind == 'fresh' and 'rows 64 and 65' in line.note
             for line in found.lines)
  # In two files with an index: the same.
  names_of = sorted(theirs)
  parts = {'a.safetensors': names_of[::2], 'b.safetensors': names_of[1::2]}
  for file, keys in parts.items():
    safetensors_numpy.save_file({k: theirs[k] for k in keys}, tmp_path / file)
  (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(
      {'weight_map': {k: file for file, keys in parts.items() for k in keys}}))
  shutil.copy(path.with_name('config.json'), tmp_path)
  again = importing.read('xlmr', tmp_path / 'model.safetensors.index.json')
  jax.tree.map(np.testing.assert_array_equal, found.params, again.params)


def test_language_table_needs_as_many_names(tmp_path):
  tensors = _tensors() | {
      'cross_lang_embeddings.weight': np.ones((3, 32), np.float32)}
  found = importing.read('m3p', _write(tmp_path / 'a.pth', tensors))
  assert importing.languages(found, ('en', 'de', 'fr')) == ['en', 'de', 'fr']
  with pytest.raises(errors.UserError, match=r'3 rows, .* names 2 languages'):
    importing.languages(found, ('en', 'de'))
  with pytest.raises(errors.UserError, match='release names 100'):
    importing.languages(found, None)
  named = found._replace(options={'lang2id': {'zh': 0, 'en': 2, 'de': 1}})
  assert importing.languages(named, None) == ['zh_CN', 'de', 'en']


@pytest.mark.parametrize(('change', 'message'), [
    ({'ffns.1.lin2.bias': None}, "'ffns.1.lin2.bias' is missing"),
    ({'extra.weight': np.ones(2, np.float32)}, "'extra.weight' .* no part"),
    ({'ffns.1.lin2.bias': np.ones(31, np.float32)},
     r"'ffns.1.lin2.bias' has shape \(31,\); allowed: \(32,\)"),
    ({'pred_layer.proj.weight': np.ones((300, 32), np.float32)},
     'differs from'),
    ({'embeddings.weight': np.ones((300, 16), np.float32)},
     'width 32, but the tensors of .* have 16')])
def test_wrong_tensors_are_named(tmp_path, change, message):
  tensors = _tensors()
  for key, value in change.items():
    if value is None:
      del tensors[key]
    else:
      tensors[key] = value
  with pytest.raises(errors.UserError, match=message):
    importing.read('m3p', _write(tmp_path / 'a.pth', tensors))


def test_optional_parts_may_be_absent_until_they_are_asked_for(tmp_path):
  tensors = {key: value for key, value in _tensors().items()
             if not names.OPTIONAL.match(key)}
  path = _write(tmp_path / 'a.pth', tensors)
  assert not importing.read('m3p', path).unused
  asked = dataclasses.replace(_TINY, decoder=True)
  with pytest.raises(errors.UserError, match='decoder is True, but .* False'):
    importing.read('m3p', path, asked=asked)


def test_heads_are_never_guessed(tmp_path):
  path = _write(tmp_path / 'a.pth', _tensors(), geometry=False)
  with pytest.raises(errors.UserError, match='number of heads'):
    importing.read('m3p', path)
  assert importing.read('m3p', path, asked=_TINY).config.num_heads == 4


class _Evil:

  def __reduce__(self):
    import os
    return os.system, ('touch hacked',)


def _bad_file(path, kind):
  data = _M3P.read_bytes()
  if kind == 'cut':
    path.write_bytes(data[:len(data) // 2])
  elif kind == 'flipped':
    path.write_bytes(b'PK\x03\x05' + data[4:])
  elif kind == 'evil':
    path.write_bytes(pickle.dumps(_Evil(), protocol=2))
  elif kind == 'empty':
    path.write_bytes(b'')
  elif kind == 'folder':
    path.mkdir()


@pytest.mark.parametrize(('kind', 'message'), [
    ('cut', 'a.pth'), ('flipped', 'a.pth'), ('evil', 'system'),
    ('empty', 'the file is empty'), ('folder', 'is a folder'),
    ('absent', 'no such file')])
def test_bad_file_leaves_nothing_behind(tmp_path, monkeypatch, kind, message):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'a.pth'
  _bad_file(path, kind)
  before = sorted(tmp_path.iterdir())
  with pytest.raises(errors.UserError, match=message), output.draft(
      tmp_path / 'out', overwrite=False):
    importing.read('m3p', path)
  assert sorted(tmp_path.iterdir()) == before


def test_numbers_that_are_not_finite_are_told(tmp_path, caplog):
  tensors = _tensors()
  tensors['mrfr_dense.bias'][3] = np.nan
  importing.read('m3p', _write(tmp_path / 'a.pth', tensors))
  assert 'mrfr_dense.bias' in caplog.text


def test_output_is_replaced_only_when_asked(tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'old').touch()
  with pytest.raises(errors.UserError, match='exists; --overwrite'), (
      output.draft(out, overwrite=False)):
    pass
  with pytest.raises(RuntimeError), output.draft(out, overwrite=True) as path:
    path.mkdir()
    raise RuntimeError('in the middle')
  assert (out / 'old').exists()
  with output.draft(out, overwrite=True) as path:
    path.mkdir()
    (path / 'new').touch()
  assert [p.name for p in out.iterdir()] == ['new']
  assert list(tmp_path.iterdir()) == [out]


def test_commands(tmp_path):
  def run(*args):
    return subprocess.run(
        [sys.executable, '-m', 'm3p_jax.convert', *map(str, args)],
        capture_output=True, text=True, check=False)

  out = tmp_path / 'out'
  done = run('import', '--from=m3p', f'--path={_M3P}', f'--out={out}')
  assert done.returncode == 0, done.stderr
  assert 'kept aside' in done.stdout
  assert checkpoint.peek(out)[0].num_heads == 4
  again = run('import', '--from=m3p', f'--path={_M3P}', f'--out={out}')
  assert again.returncode == 2
  assert again.stderr.strip().splitlines()[-1].startswith('error: --out=')
  wrong = run('export', '--to=onnx', f'--checkpoint={out}', '--out=x')
  assert wrong.returncode == 2
  assert 'safetensors' in wrong.stderr
