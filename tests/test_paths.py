"""Every switch of a config that chooses a path, run from the loop's entrance.

On made-up records and a tiny model: whether a path can be taken at all, and
gives what its neighbour gives where both must agree.
"""

import numpy as np
import pytest

from configs import base
from m3p_jax import metrics
from m3p_jax import train
from tests import toy

# Held by the run's speed alone.
_TIMES = ('examples_per_second', 'step_seconds')


def _config(**changes):
  """Returns a config of two steps; `changes` by dotted keys."""
  config = base.get_config()
  config.model.update(dict(
      width=8, num_heads=2, mlp_width=16, num_layers=2, max_positions=40,
      region_feature_dim=toy.FEATURE_DIM, num_region_classes=6,
      num_languages=3, embedding_dim=8, dtype='float32'))
  data = config.data
  data.data_dir, data.languages = str(toy.data_dir()), toy.LANGUAGES
  data.text.datasets, data.text.languages = ('sentences',), ('en', 'de')
  data.text.max_length = data.image_text.max_length = 16
  data.image_text.datasets = ('pairs', 'english')
  data.image_text.languages = toy.LANGUAGES
  data.image_text.code_switch.update(dict(rate=0.5, languages=('de', 'fr')))
  config.tasks = dict(
      mc_mlm=base.task_config('masked_lm', 'image_text', 4),
      contrastive=base.task_config('contrastive', 'image_text', 4))
  config.optimizer.warmup_steps = 1
  config.num_train_steps = config.checkpoint_every_steps = 2
  config.log_every_steps = config.eval_batches = 1
  config.mesh.data = 1
  config.update_from_flattened_dict(changes)
  return config


def _losses(config, workdir):
  """Trains, and returns the lines of metrics.jsonl, all finite."""
  train.train_and_evaluate(config, workdir)
  lines = [{key: value for key, value in line.items() if key not in _TIMES}
           for line in metrics.read(workdir / 'metrics.jsonl')]
  assert np.isfinite([value for line in lines
                      for value in line.values()]).all()
  return lines


@pytest.mark.parametrize('datasets', [('pairs', 'english'), ('packed',)])
def test_losses_from_records_are_those_from_memory(tmp_path, datasets):
  found = []
  for memory_bytes in (10**9, 0):
    config = _config(**{'data.image_text.memory_bytes': memory_bytes,
                        'data.image_text.datasets': datasets})
    if datasets == ('packed',):
      config.data.image_text.languages = ('en',)
    found.append(_losses(config, tmp_path / str(memory_bytes)))
  assert [line['step'] for line in found[0]] == [0, 1, 2, 2]
  assert found[0] == found[1]
