"""Outputs equal the reference implementations', at any geometry."""

import dataclasses
import math
import shutil

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3p_jax import batch as batch_lib
from m3p_jax.convert import check
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from m3p_jax.convert import names
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from tests import m3p_reference
from tests import torch_files
from tests import weight_files


@pytest.mark.parametrize(('kind', 'name', 'file'), [
    ('m3p', 'm3p_small', 'checkpoint.pth'),
    ('m3p', 'm3p_small_legacy', 'checkpoint.pth'),
    ('xlmr', 'xlmr_small', 'model.safetensors')])
def test_outputs_equal_the_reference_implementations(kind, name, file):
  folder = weight_files.GOLDEN / name
  lines = check.run(kind, folder / file, folder)
  assert lines
  assert not [str(line) for line in lines if not line.passes]


def test_check_sees_a_difference_and_an_array_without_counterpart(tmp_path):
  source = weight_files.GOLDEN / 'xlmr_small'
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


def _m3p_inputs(config, *, rows=3, length=6, regions=4):
  """Returns inputs as golden/'s, normalised, at a geometry."""
  rng = np.random.default_rng(3)

  def unit(*shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  features = unit(rows, regions, config.region_feature_dim)
  ids = rng.integers(4, config.vocab_size, (rows, length))
  labels = np.where(rng.random((rows, length)) < 0.4, ids, -1)
  labels[:, 0] = ids[:, 0]
  labels[:, -1] = -1
  classes = rng.integers(-1, config.num_region_classes, (rows, regions))
  classes[0] = 2
  return {
      'token_ids': ids, 'masked_token_ids': np.where(labels == -1, ids, 5),
      'text_lengths': np.arange(rows) + length - rows + 1,
      'region_features': rng.normal(size=features.shape).astype(np.float32),
      'masked_region_features': features * (classes == -1)[..., None],
      'region_locations': unit(rows, regions, 5), 'mlm_labels': labels,
      'object_labels': classes,
      'match_labels': np.arange(rows).astype(np.float32) % 2}


def test_another_m3p_geometry_equals_a_second_implementation(tmp_path):
  config = weight_files.OTHER
  weights = weight_files.random_m3p(config)
  inputs = _m3p_inputs(config)
  del weights['pred_layer.proj.weight']  # The same numbers as `embeddings`.
  expected = m3p_reference.outputs(weights, inputs, num_heads=3)
  torch_files.write_state_dict(tmp_path / 'a.pth', weights, {'n_heads': 3})
  np.savez(tmp_path / 'inputs.npz', **inputs)
  np.savez(tmp_path / 'outputs.npz', **expected)
  lines = check.run('m3p', tmp_path / 'a.pth', tmp_path)
  assert {line.name for line in lines} > {
      'joint_hidden', 'joint_hidden_refined', 'decoder_hidden', 'loss_xmlm',
      'grad_global_norm', 'grad/embeddings.weight'}
  assert not [str(line) for line in lines if not line.passes]


def test_languages_enter_the_text_and_the_image_path_alone(tmp_path):
  config = weight_files.OTHER
  weights = weight_files.random_m3p(config)
  torch_files.write_state_dict(tmp_path / 'a.pth', weights, {'n_heads': 3})
  imported = importing.read('m3p', tmp_path / 'a.pth')
  inputs = _m3p_inputs(config)
  ids, languages = inputs['token_ids'], np.array([4, 0, 2], np.int32)
  mask = np.ones(ids.shape, bool)
  features, boxes = inputs['region_features'], inputs['region_locations']
  regions = batch_lib.Regions(
      np.arange(3), features, boxes, np.ones((3, 4), np.int32),
      np.ones((3, 4), bool))
  batch = batch_lib.Batch(ids, mask, languages, regions)

  def passes(module):
    joint = module.encode(batch, deterministic=True)
    return {
        'joint': jnp.concatenate([joint.regions_BRD, joint.text_BLD], axis=1),
        'text': module.encode(batch._replace(regions=None),
                              deterministic=True).text_BLD,
        'image': module.encode_images(regions, languages, deterministic=True)}

  ours = jax.jit(lambda params: nn.apply(passes, m3p.M3P(dataclasses.replace(
      imported.config, normalise_regions=False)))(
          {'params': params}))(imported.params)
  reference = m3p_reference.M3P(weights, 3)
  embedded = reference.regions(features, boxes)
  for name, expected in {
      'joint': reference.joint(ids, mask, embedded),
      'text': reference.text(ids, mask, languages=languages),
      'image': reference.image(embedded, languages=languages)}.items():
    np.testing.assert_allclose(ours[name], expected, atol=1e-5, err_msg=name)
  assert np.abs(reference.image(embedded) - ours['image']).max() > 0.01


def test_xlmr_large_by_shape():
  config = dataclasses.replace(
      model_config.ModelConfig(num_languages=1), width=1024, mlp_width=4096,
      num_heads=16, num_layers=24)
  ours = layout.shapes_of(config)
  shapes = layout.their_shapes(
      names.xlmr(config), ours, vocab_size=config.vocab_size)
  positions_and_type = (514 + 1) * 1024
  # Hugging Face's XLM-R large has 559,890,432 with its pooler.
  assert (sum(map(math.prod, shapes.values())) + positions_and_type
          + 1024 * 1025 == 559_890_432)
  assert ours['encoder/attention/query/kernel'] == (24, 1024, 16, 64)
