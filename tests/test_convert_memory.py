"""An import holds its largest parameter, never the whole file."""

import tracemalloc

import numpy as np
import pytest

from m3p_jax.convert import importing
from m3p_jax.convert import m3p_shapes
from m3p_jax.convert import names
from m3p_jax.convert import torch_writer
from m3p_jax.model import config as model_config
from m3p_jax.saving import deferred
from tests import torch_files
from tests import weight_files

_CONFIG = model_config.ModelConfig(
    vocab_size=20_000, width=512, num_heads=8, mlp_width=6_144, num_layers=3,
    max_positions=64, region_feature_dim=64, num_region_classes=8,
    num_languages=1, embedding_dim=8)


@pytest.mark.parametrize('write', [
    torch_writer.write_flat, torch_files.write_state_dict])
def test_memory_stays_below_the_file_size(tmp_path, write):
  path = tmp_path / 'a.pth'
  tensors = {key: deferred.Deferred(shape, lambda shape=shape: np.zeros(
      shape, np.float32)) for key, shape in m3p_shapes.of(
          _CONFIG, refiner_layers=0).items()}
  for copy, original in names.TIED.items():
    tensors[copy] = tensors[original]
  write(path, tensors)
  weight_files.write_geometry(tmp_path, 8)
  assert path.stat().st_size > 150e6
  importing.read('m3p', path)  # What is compiled stays.
  tracemalloc.start()
  importing.write(importing.read('m3p', path), tmp_path / 'out',
                  asked_languages=None)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 0.6 * path.stat().st_size
