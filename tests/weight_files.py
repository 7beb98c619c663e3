"""Weight files that several tests read: golden ones, and random ones."""

import json
import pathlib
import shutil

import numpy as np

from input_pipeline.weights import pickles
from m3p_jax.convert import layout
from m3p_jax.convert import names
from m3p_jax.model import config as model_config
from tests import torch_files

GOLDEN = pathlib.Path(__file__).parent / 'golden'
M3P = GOLDEN / 'm3p_small' / 'checkpoint.pth'
XLMR = GOLDEN / 'xlmr_small' / 'model.safetensors'
# The golden M3P's geometry.
TINY = model_config.ModelConfig(
    vocab_size=300, width=32, num_heads=4, mlp_width=128, num_layers=2,
    num_languages=1, num_region_classes=1600, region_feature_dim=2048,
    embedding_dim=8)
# Another geometry, no two sizes alike.
OTHER = model_config.ModelConfig(
    vocab_size=211, width=24, num_heads=3, mlp_width=40, num_layers=2,
    max_positions=31, num_languages=5, num_region_classes=13,
    region_feature_dim=17, embedding_dim=8)


def tensors() -> dict[str, np.ndarray]:
  """Returns those of the golden M3P, without `module.`."""
  return {key.removeprefix('module.'): np.array(value)
          for key, value in pickles.load_torch(M3P)['model'].items()}


def write(path: pathlib.Path, tensors, options=None, *,
          geometry: bool = True) -> pathlib.Path:
  """Returns the path of an M3P file, the golden config.json beside it."""
  torch_files.write_state_dict(path, tensors, options)
  if geometry:
    shutil.copy(M3P.with_name('config.json'), path.with_name('config.json'))
  return path


def random_m3p(config: model_config.ModelConfig, *,
               refiner_layers: int = 2) -> dict[str, np.ndarray]:
  """Returns the full set of tensors of a geometry, random."""
  rng = np.random.default_rng(7)
  found = {
      key: rng.normal(1.0 if 'norm' in key.lower() and key.endswith('weight')
                      else 0.0, 0.2, shape).astype(np.float32)
      for key, shape in layout.m3p_shapes(
          config, refiner_layers=refiner_layers).items()}
  for copy, original in names.TIED.items():
    found[copy] = found[original]
  return found


def write_geometry(folder: pathlib.Path, num_heads: int) -> None:
  """Writes the one number that is in no tensor."""
  (folder / 'config.json').write_text(json.dumps({'num_heads': num_heads}))
