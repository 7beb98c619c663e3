"""Every mode of main.py starts from an import."""

import dataclasses
import json
import shutil

import numpy as np

from configs import base
from m3p_jax import checkpoint
from m3p_jax import search
from m3p_jax import train
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from m3p_jax.convert import names
from m3p_jax.evaluation import retrieval
from tests import retrieval_data
from tests import test_search
from tests import torch_files
from tests import toy
from tests import weight_files

_CONFIG = dataclasses.replace(retrieval_data.CONFIG, num_languages=1)


def _write_m3p(folder):
  path = folder / 'checkpoint.pth'
  return torch_files.write_state_dict(
      path, weight_files.random_m3p(_CONFIG), {'n_heads': 2})


def _write_xlmr(folder):
  shapes = layout.their_shapes(
      names.xlmr(_CONFIG), layout.shapes_of(_CONFIG), vocab_size=500)
  shapes['embeddings.position_embeddings.weight'] = (64, 16)
  shapes['embeddings.token_type_embeddings.weight'] = (1, 16)
  rng = np.random.default_rng(0)
  path = folder / 'pytorch_model.bin'
  torch_files.write_flat(path, {
      key: rng.normal(0, 0.2, shape).astype(np.float32)
      for key, shape in shapes.items()})
  (folder / 'config.json').write_text(json.dumps(
      {'num_attention_heads': 2, 'layer_norm_eps': 1e-5}))
  return path


def _import(kind, path, folder):
  """Returns (checkpoint folder, config of a run on toy data) of a file."""
  imported = folder / 'imported'
  importing.write(importing.read(kind, path, asked=_CONFIG), imported,
                  asked_languages=('en', 'de'))
  pairs = folder / 'data' / 'pairs'
  shutil.copytree(toy.data_dir() / 'pairs', pairs)
  (pairs / 'manifest.json').write_text(json.dumps({
      'tokenizer': retrieval_data.TOKENIZER,
      'counts': {'train': 60, 'validation': 8, 'test': 9}}))
  config = retrieval_data.make_config(folder / 'data')
  config.init_from = str(imported)
  return imported, config


def test_training_starts_from_m3p(tmp_path):
  imported, config = _import('m3p', _write_m3p(tmp_path), tmp_path)
  config.data.image_text.update(dict(
      datasets=('pairs',), languages=('en', 'de'), max_length=24))
  config.tasks = dict(mc_vlm=base.task_config('matching', 'image_text', 4))
  config.optimizer.learning_rate = 0.0
  config.optimizer.schedule = 'constant'
  config.num_train_steps = 1
  train.train_and_evaluate(config, tmp_path / 'run')
  before, after = (layout.flatten(checkpoint.load(folder)[0])
                   for folder in (imported, tmp_path / 'run'))
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value, name)


def test_evaluation_and_search_start_from_xlmr(tmp_path, monkeypatch):
  imported, config = _import('xlmr', _write_xlmr(tmp_path), tmp_path)
  cell = retrieval.evaluate(config, tmp_path / 'evaluated')
  assert cell['checkpoint'] == str(imported)
  assert set(cell['languages']) == {'en', 'de'}
  monkeypatch.setattr('input_pipeline.tokenizer.load',
                      test_search.FakeTokenizer)
  monkeypatch.setattr('input_pipeline.vision.extractors.GridExtractor',
                      test_search.FakeExtractor)
  found = search.load(imported, data_dir=tmp_path / 'data',
                      dataset='pairs').search('ein roter Apfel', k=3)
  assert len(found) == 3
