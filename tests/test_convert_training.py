"""Training starts from an import."""

import dataclasses
import json
import shutil

import numpy as np

from configs import base
from m3p_jax import checkpoint
from m3p_jax import train
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from tests import retrieval_data
from tests import torch_files
from tests import toy
from tests import weight_files

_CONFIG = dataclasses.replace(retrieval_data.CONFIG, num_languages=1)


def test_training_starts_from_m3p(tmp_path):
  path = torch_files.write_state_dict(
      tmp_path / 'checkpoint.pth', weight_files.random_m3p(_CONFIG),
      {'n_heads': 2})
  imported = tmp_path / 'imported'
  importing.write(importing.read('m3p', path, asked=_CONFIG), imported,
                  asked_languages=('en', 'de'))
  pairs = tmp_path / 'data' / 'pairs'
  shutil.copytree(toy.data_dir() / 'pairs', pairs)
  (pairs / 'manifest.json').write_text(json.dumps({
      'tokenizer': retrieval_data.TOKENIZER,
      'counts': {'train': 60, 'validation': 8, 'test': 9}}))
  config = retrieval_data.make_config(tmp_path / 'data')
  config.init_from = str(imported)
  config.model.dropout = config.model.attention_dropout = 0.0
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
