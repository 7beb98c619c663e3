"""A made-up retrieval set and a tiny run, shared by the evaluation tests."""

from collections.abc import Mapping
import json
import pathlib
import shutil
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from input_pipeline import evaluation_set
from m3p_jax import batch as batch_lib
from m3p_jax import checkpoint
from m3p_jax import train_step
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p
from tests import models
from tests import toy

LANGUAGE_IDS = {'en': 0, 'de': 1}
TOKENIZER = {'source': 'toy', 'sha256': 'ab'}
MANIFEST = {'tokenizer': TOKENIZER, 'languages': list(LANGUAGE_IDS)}
# Reads the toy datasets; a short word table, for it is written to disk.
CONFIG = model_config_lib.ModelConfig(
    vocab_size=500, width=16, num_heads=2, mlp_width=32, num_layers=1,
    max_positions=64, region_feature_dim=toy.FEATURE_DIM,
    num_region_classes=7, num_languages=1, embedding_dim=8)


def retrieval_set(num_images=7) -> evaluation_set.RetrievalSet:
  """Returns pictures for `models.TINY`, captions of different lengths."""
  rng = np.random.default_rng(0)
  regions = jax.tree.map(
      np.asarray, models.batch(rows=num_images, seed=1).regions)
  captions = {}
  for language, count in (('en', 6), ('de', 5)):
    length_N = rng.integers(3, 20, count)
    mask_NL = np.arange(24) < length_N[:, None]
    ids_NL = np.where(mask_NL, rng.integers(4, 9_999, (count, 24)), 1)
    captions[language] = evaluation_set.CaptionSet(
        [f'{language} {i}' for i in range(count)], ids_NL.astype(np.int32),
        mask_NL, [{i, num_images - 1} if i == 0 else {i}
                  for i in range(count)])
  ids = [f'animals/{i}' for i in range(num_images)]
  return evaluation_set.RetrievalSet(ids, ids, regions, captions)


def make_workdir(folder: pathlib.Path) -> pathlib.Path:
  """Returns the workdir of a finished run on the toy data, of step 7."""
  data_dir, workdir = folder / 'data', folder / 'run'
  shutil.copytree(toy.data_dir() / 'pairs', data_dir / 'pairs')
  (data_dir / 'pairs' / 'manifest.json').write_text(json.dumps({
      'tokenizer': TOKENIZER,
      'counts': {'train': 60, 'validation': 8, 'test': 9}}))
  save_checkpoint(workdir / 'checkpoints', step=7)
  config = make_config(data_dir)
  (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
  return workdir


def save_checkpoint(
    folder: pathlib.Path, *, step: int,
    config: model_config_lib.ModelConfig = CONFIG,
    manifest: Mapping[str, Any] = MANIFEST) -> None:
  """Saves weights drawn with the step as their seed."""
  params = jax.jit(lambda key: nn.unbox(m3p.init_params(config, key)))(
      jax.random.key(step))
  state = train_step.TrainState(
      step=jnp.int32(step), params=params, frozen={}, opt_state=())
  checkpointer = checkpoint.Checkpointer(folder)
  checkpointer.save(state, None, config=config, manifest=dict(manifest))
  checkpointer.close()


def make_config(data_dir: pathlib.Path):
  """Returns the config of that run."""
  config = base.get_config()
  config.model.dtype = 'float32'
  config.data.data_dir = str(data_dir)
  config.data.languages = tuple(LANGUAGE_IDS)
  config.setting = 'all'
  config.evaluation.update(dict(
      dataset='pairs', mode='dual', languages=('en', 'de'), batch_size=16,
      max_length=24, top_k=3))
  return config


def regions_of(data: evaluation_set.RetrievalSet,
               index) -> batch_lib.Regions:
  """Returns the chosen pictures."""
  return jax.tree.map(lambda x: x[np.asarray(index)], data.regions)
