"""What an import takes, refuses and tells, and the commands."""

import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from input_pipeline import errors
from m3p_jax import output
from m3p_jax.convert import __main__ as commands
from m3p_jax.convert import importing
from m3p_jax.convert import names
from tests import weight_files


def test_xlmr_positions_are_shifted_and_fresh_rows_listed(tmp_path):
  path = weight_files.GOLDEN / 'xlmr_small' / 'model.safetensors'
  found = importing.read('xlmr', path)
  theirs = safetensors_numpy.load_file(path)
  rows = theirs['roberta.embeddings.position_embeddings.weight']
  kind = theirs['roberta.embeddings.token_type_embeddings.weight']
  np.testing.assert_array_equal(
      np.asarray(found.params['positions']['embedding'])[:-2],
      rows[2:] + kind[0])
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
  for same in (tmp_path / 'model.safetensors.index.json',
               path.with_name('pytorch_model.bin')):
    jax.tree.map(np.testing.assert_array_equal, found.params,
                 importing.read('xlmr', same).params)


def test_language_table_needs_as_many_names(tmp_path):
  tensors = weight_files.tensors() | {
      'cross_lang_embeddings.weight': np.ones((3, 32), np.float32)}
  found = importing.read('m3p', weight_files.write(tmp_path / 'a.pth', tensors))
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
     'width 32, but the tensors of .* have 16'),
    # An option of the file, no tensor.
    ({'gelu_activation': False}, "'gelu_activation' is .*: True")])
def test_another_m3p_is_refused_by_name(tmp_path, change, message):
  tensors, options = weight_files.tensors(), {}
  for key, value in change.items():
    if isinstance(value, bool):
      options[key] = value
    elif value is None:
      del tensors[key]
    else:
      tensors[key] = value
  path = weight_files.write(tmp_path / 'a.pth', tensors, options)
  with pytest.raises(errors.UserError, match=message):
    importing.read('m3p', path)


def test_optional_parts_may_be_absent_until_they_are_asked_for(tmp_path):
  needed = {name.key for name in names.m3p(weight_files.TINY)}
  tensors = {key: value for key, value in weight_files.tensors().items()
             if key in needed}
  path = weight_files.write(tmp_path / 'a.pth', tensors)
  assert not importing.read('m3p', path).unused
  asked = dataclasses.replace(weight_files.TINY, decoder=True)
  with pytest.raises(errors.UserError, match='decoder is True, but .* False'):
    importing.read('m3p', path, asked=asked)


def test_heads_are_never_guessed(tmp_path):
  path = weight_files.write(
      tmp_path / 'a.pth', weight_files.tensors(), geometry=False)
  with pytest.raises(errors.UserError, match='number of heads'):
    importing.read('m3p', path)
  found = importing.read('m3p', path, asked=weight_files.TINY)
  assert found.config.num_heads == 4


def test_numbers_that_are_not_finite_are_refused_where_they_are_read(
    tmp_path, caplog):
  tensors = weight_files.tensors()
  tensors['cross_alignment.layer_norm.bias'][3] = np.nan
  importing.read('m3p', weight_files.write(tmp_path / 'a.pth', tensors))
  assert 'cross_alignment.layer_norm.bias' in caplog.text
  tensors['mrfr_dense.bias'][3] = np.nan
  with pytest.raises(errors.UserError, match="'mrfr_dense.bias' holds 1 num"):
    importing.read('m3p', weight_files.write(tmp_path / 'a.pth', tensors))


def _xlmr_variant(folder, name):
  """Returns the path of the golden XLM-R as other tools write it."""
  tensors = safetensors_numpy.load_file(weight_files.XLMR)
  bare = {key.removeprefix('roberta.'): value
          for key, value in tensors.items()}
  words = 'roberta.embeddings.word_embeddings.weight'
  rows, width = tensors[words].shape
  made = {
      '': lambda: tensors,
      'no prefix, heads of a fine-tuning, a buffer': lambda: bare | {
          'embeddings.position_ids': np.arange(66)[None],
          'classifier.dense.weight': np.zeros((2, 2), np.float32),
          'qa_outputs.bias': np.zeros(2, np.float32)},
      'bf16': lambda: {key: value.astype(ml_dtypes.bfloat16)
                       for key, value in tensors.items()},
      'f16': lambda: {key: value.astype(np.float16)
                      for key, value in tensors.items()},
      'sentence_transformers': lambda: {
          f'0.auto_model.{key}': value for key, value in bare.items()},
      'gamma_beta': lambda: {
          key.replace('Norm.weight', 'Norm.gamma').replace(
              'Norm.bias', 'Norm.beta'): value
          for key, value in tensors.items()},
      'resized': lambda: tensors | {
          words: np.ones((rows + 3, width), np.float32)},
      'twice': lambda: tensors | bare,
      'types': lambda: tensors | {
          'roberta.embeddings.token_type_embeddings.weight':
              np.zeros((2, width), np.float32)},
  }[name]()
  path = folder / 'model.safetensors'
  safetensors_numpy.save_file(made, path)
  shutil.copy(weight_files.XLMR.with_name('config.json'), folder)
  return path


def test_text_begins_where_the_release_has_it(tmp_path):
  assert importing.read('m3p', weight_files.M3P).config.text_position == 100
  # Fewer positions than the release's regions: a model of another kind.
  path = weight_files.write(
      tmp_path / 'other.pth', weight_files.random_m3p(weight_files.OTHER),
      geometry=False)
  weight_files.write_geometry(tmp_path, weight_files.OTHER.num_heads)
  assert importing.read('m3p', path).config.text_position == 0


@pytest.mark.parametrize(('name', 'tolerance'), [
    ('no prefix, heads of a fine-tuning, a buffer', 0),
    ('sentence_transformers', 0), ('gamma_beta', 0),
    # Half of the last bit of what they keep.
    ('f16', 2 ** -11), ('bf16', 2 ** -8)])
def test_xlmr_is_read_as_other_tools_write_it(tmp_path, name, tolerance):
  expected = importing.read('xlmr', weight_files.XLMR)
  found = importing.read('xlmr', _xlmr_variant(tmp_path, name))
  assert found.config == expected.config
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
          np.asarray(a), np.asarray(b), rtol=0, atol=tolerance),
      found.params, expected.params)


@pytest.mark.parametrize(('name', 'said', 'message'), [
    ('', {'hidden_act': 'gelu_new'}, "'hidden_act' is 'gelu_new'.*'gelu'"),
    ('', {'position_embedding_type': 'relative_key'},
     "'position_embedding_type' is 'relative_key'; allowed: 'absolute'"),
    ('', {'model_type': 'roberta'}, "'model_type' is 'roberta'.*xlm-roberta"),
    ('', {'layer_norm_eps': None}, 'nothing says the LayerNorm epsilon'),
    ('resized', {}, 'vocab_size 300, but the tensors of .* have 303'),
    ('twice', {}, 'the same tensor under several names'),
    ('types', {}, r'shape \(2, 32\); allowed: \(1, 32\)')])
def test_another_model_than_xlmr_is_refused_by_name(
    tmp_path, name, said, message):
  path = _xlmr_variant(tmp_path, name)
  beside = path.with_name('config.json')
  content = json.loads(beside.read_text()) | said
  beside.write_text(json.dumps({
      key: value for key, value in content.items() if value is not None}))
  with pytest.raises(errors.UserError, match=message):
    importing.read('xlmr', path)


def test_a_resized_word_table_is_read_where_its_config_agrees(
    tmp_path, caplog):
  path = _xlmr_variant(tmp_path, 'resized')
  beside = path.with_name('config.json')
  beside.write_text(json.dumps(
      json.loads(beside.read_text()) | {'vocab_size': 303}))
  assert importing.read('xlmr', path).config.vocab_size == 303
  # Of XLM-R's 250,002 ids most have no row: said here, refused at load.
  assert '303 rows' in caplog.text and '250,002 ids' in caplog.text


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


def test_told_to_stop_it_leaves_nothing(tmp_path):
  process = subprocess.Popen(
      [sys.executable, '-m', 'm3p_jax.convert', 'import', '--from=m3p',
       f'--path={weight_files.M3P}', f'--out={tmp_path / "out"}'],
      stdout=subprocess.DEVNULL)
  while not list(tmp_path.iterdir()):
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  assert process.wait() == 128 + signal.SIGTERM
  assert not list(tmp_path.iterdir())


def test_told_to_stop_in_a_callback_it_stops():
  done = subprocess.run([sys.executable, '-c', '''
import gc, os, signal, sys, time
from m3p_jax.convert.__main__ import end_when_told
end_when_told()
def stop(*_):
  gc.callbacks.remove(stop)
  os.kill(os.getpid(), signal.SIGTERM)
  sum(range(1000))
gc.callbacks.append(stop)
gc.collect()
time.sleep(30)
'''], capture_output=True, check=False)
  assert done.returncode == 128 + signal.SIGTERM, done.stderr


def test_the_report_and_the_checksum_are_in_import_json(tmp_path):
  importing.write(importing.read('m3p', weight_files.M3P), tmp_path / 'out',
                  asked_languages=None)
  found = json.loads((tmp_path / 'out' / 'import.json').read_text())
  assert found['sha256'] == {'checkpoint.pth': hashlib.sha256(
      weight_files.M3P.read_bytes()).hexdigest()}
  assert found['prefix'] == 'module.'
  kinds = {line['name']: (line['kind'], line['shape'])
           for line in found['tensors']}
  assert kinds['embeddings.weight'] == ('used', [300, 32])
  assert kinds['cross_alignment.align_output.bias'] == ('unused', [32])
  assert kinds['log_scale'][0] == 'fresh'


def test_check_s_exit_status(tmp_path):
  for file in ('inputs.npz', 'outputs.npz'):
    shutil.copy(weight_files.XLMR.parent / file, tmp_path)

  def status(name):
    values = {'from': types.SimpleNamespace(value=name)}
    flags = type('Flags', (dict,), dict(
        checkpoint=weight_files.XLMR, vectors=tmp_path))(values)
    with pytest.raises(SystemExit) as stopped:
      commands._check(flags)
    return stopped.value.code

  assert status('xlmr') == 0
  np.savez(tmp_path / 'outputs.npz', pooled=np.zeros(2))
  assert status('xlmr') == 1
  (tmp_path / 'outputs.npz').write_bytes(b'PK')
  with pytest.raises(errors.UserError, match='outputs.npz'):
    status('xlmr')


def test_a_mistake_is_one_line():
  done = subprocess.run(
      [sys.executable, '-m', 'm3p_jax.convert', 'export', '--to=onnx'],
      capture_output=True, text=True, check=False)
  assert done.returncode == 2
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith('error: ') and 'safetensors' in line
