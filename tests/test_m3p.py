"""Properties of the model: what a hidden state may depend on, and shapes."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from m3p_jax.model import regions as regions_lib
from tests import models


def _encode(model, batch):
  return model.encode(batch, deterministic=True)


def test_padding_does_not_change_text_logits():
  batch = models.batch(length=9)
  wide = batch._replace(
      token_ids_BL=jnp.pad(batch.token_ids_BL, ((0, 0), (0, 4)),
                           constant_values=77),
      text_mask_BL=jnp.pad(batch.text_mask_BL, ((0, 0), (0, 4))))

  def logits(model, batch):
    encoded = model.encode(batch, deterministic=True)
    return model.token_logits(encoded.text_BLD[:, :7])[..., :500]

  for strip in (lambda b: b, lambda b: b._replace(regions=None)):
    narrow_BPV = models.call(logits, strip(batch))
    wide_BPV = models.call(logits, strip(wide))
    np.testing.assert_allclose(narrow_BPV, wide_BPV, rtol=1e-4, atol=1e-5)


def test_padding_regions_are_not_read():
  batch = models.batch()
  mask_BR = batch.regions.mask_BR.at[:, -1].set(False)
  batch = batch._replace(regions=batch.regions._replace(mask_BR=mask_BR))

  def output(features_BRF):
    encoded = models.call(_encode, batch._replace(
        regions=batch.regions._replace(features_BRF=features_BRF)))
    return encoded.text_BLD.sum() + encoded.regions_BRD.sum()

  gradient_BRF = jax.grad(output)(batch.regions.features_BRF)
  assert np.abs(gradient_BRF[:, -1]).max() == 0
  assert np.abs(gradient_BRF[:, 0]).max() > 0


def test_hidden_states_are_zero_at_padding():
  encoded = models.call(_encode, models.batch())
  assert np.abs(encoded.text_BLD[:, -2:]).max() == 0


def test_text_positions_start_after_the_regions():
  batch = models.batch()
  _, params = models.tiny()
  moved = jax.tree.map(lambda x: x, params)
  rows = moved['positions']['embedding']
  # The text occupies positions R … R+L-1 = 5 … 13 and nothing else.
  moved['positions'] = {'embedding': rows.at[14:].multiply(-3.0)}
  np.testing.assert_array_equal(
      models.call(_encode, batch).text_BLD,
      models.call(_encode, batch, params=moved).text_BLD)
  moved['positions'] = {'embedding': rows.at[5].multiply(-3.0)}
  assert np.abs(models.call(_encode, batch).text_BLD - models.call(
      _encode, batch, params=moved).text_BLD).max() > 1e-3


def test_a_pair_scores_the_same_however_rows_are_padded():
  batch = models.batch()
  module, params = models.tiny()
  wide = batch._replace(regions=jax.tree.map(
      lambda x: x if x.ndim == 1 else jnp.pad(
          x, [(0, 0), (0, 3)] + [(0, 0)] * (x.ndim - 2)), batch.regions))

  def score(batch, text_position):
    placed = m3p.M3P(dataclasses.replace(
        module.config, text_position=text_position), module.options)
    return nn.apply(lambda m: m.match_rows(batch), placed)({'params': params})

  np.testing.assert_allclose(score(wide, 20), score(batch, 20), atol=1e-6)
  # Right behind the padding, as version 1 has it, they differ.
  assert np.abs(score(wide, 0) - score(batch, 0)).max() > 1e-5
  with pytest.raises(ValueError, match='8 regions; allowed: 7'):
    score(wide, 7)


def test_language_is_not_in_the_joint_path_but_in_the_text_path():
  batch = models.batch()
  other = batch._replace(language_B=batch.language_B + 1)
  np.testing.assert_array_equal(
      models.call(_encode, batch).text_BLD,
      models.call(_encode, other).text_BLD)
  assert np.abs(
      models.call(_encode, batch._replace(regions=None)).text_BLD
      - models.call(_encode, other._replace(regions=None)).text_BLD
  ).max() > 1e-3


def test_image_only_pass_has_no_positions():
  regions = models.batch().regions
  turned = jax.tree.map(lambda x: x[:, ::-1] if x.ndim > 1 else x, regions)
  embed = lambda model, regions: model.embed_images(
      regions, deterministic=True)
  np.testing.assert_allclose(
      models.call(embed, regions), models.call(embed, turned), atol=1e-5)


def test_features_and_boxes_are_normalised_inside():
  regions = models.batch().regions
  scaled = regions._replace(features_BRF=regions.features_BRF * 7,
                            boxes_BRG=regions.boxes_BRG * 3)
  embed = lambda model, regions: model.embed_images(
      regions, deterministic=True)
  np.testing.assert_allclose(
      models.call(embed, regions), models.call(embed, scaled), atol=1e-5)


def test_normalise_keeps_zeros_and_has_finite_gradient():
  x = jnp.zeros((2, 3))
  assert np.abs(regions_lib.normalise(x)).max() == 0
  gradient = jax.grad(lambda x: regions_lib.normalise(x).sum())(x)
  assert np.isfinite(gradient).all()


def test_dropout_runs_only_with_a_key():
  batch = models.batch()
  run = lambda model, batch: model.encode(batch).text_BLD
  plain = models.call(run, batch)
  np.testing.assert_array_equal(plain, models.call(run, batch))
  dropped = models.call(run, batch, dropout_key=jax.random.key(1))
  assert np.abs(plain - dropped).max() > 1e-3


def test_padding_rows_of_the_vocabulary_never_win():
  logits = lambda model: model.token_logits(jnp.ones((1, 1, 16)))
  logits_BPV = models.call(logits)
  assert logits_BPV.shape[-1] == 250_112
  assert np.isneginf(logits_BPV[..., 250_002:]).all()


def test_base_size_has_the_parameters_of_the_release():
  config = model_config.ModelConfig()
  shapes = m3p.abstract_params(config)
  sizes = {name: sum(x.size for x in jax.tree.leaves(part))
           for name, part in shapes.items()}
  assert sizes['tokens'] == 250_112 * 768
  # 12 layers of 4 attention maps, 2 MLP maps and 2 LayerNorms.
  layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
  assert sizes['encoder'] == 12 * layer
  assert sizes['positions'] == 514 * 768


def test_dropped_numbers_of_features_are_those_of_all_regions_of_a_picture():
  config = dataclasses.replace(models.TINY, normalise_regions=False)
  options = model_config.Options(region_dropout=0.4)
  batch = models.batch()
  params = m3p.init_params(config, jax.random.key(0))

  def total(features_BRF, deterministic):
    return m3p.M3P(config, options).apply(
        {'params': params}, batch.regions._replace(features_BRF=features_BRF),
        deterministic=deterministic, rngs={'dropout': jax.random.key(1)},
        method='embed_regions')[:, 0].sum()

  slope = jax.grad(total)
  reads_BRF = np.asarray(slope(batch.regions.features_BRF, False) != 0)
  all_BRF = np.asarray(slope(batch.regions.features_BRF, True) != 0)
  seen_BR = np.asarray(batch.regions.mask_BR)
  assert all_BRF[seen_BR].all() and not all_BRF[~seen_BR].any()
  kept_BF = [np.unique(rows_RF[seen_R], axis=0)
             for rows_RF, seen_R in zip(reads_BRF, seen_BR, strict=True)]
  assert all(len(rows) == 1 for rows in kept_BF)
  assert len(np.unique(np.concatenate(kept_BF), axis=0)) == len(kept_BF)
  assert 0.2 < np.mean(kept_BF) < 0.95


def test_match_head_may_add_the_product_of_both_vectors():
  config = dataclasses.replace(models.TINY, match_head='first+product')
  params = nn.unbox(m3p.init_params(config, jax.random.key(0)))
  only = nn.unbox(m3p.init_params(models.TINY, jax.random.key(0)))
  assert set(params) - set(only) == {'match_product'}
  # Only the product makes a difference, and it is the joint states' cosine.
  params['match_product'] = jnp.arange(config.embedding_dim) / 10
  batch = models.batch()

  def parts(module):
    encoded = module.encode(batch, deterministic=True)
    text_BD = regions_lib.mean_pool(encoded.text_BLD, batch.text_mask_BL)
    image_BD = regions_lib.mean_pool(encoded.regions_BRD, batch.regions.mask_BR)
    embedded_BD = regions_lib.mean_pool(
        module.region_embedding(batch.regions, deterministic=True),
        batch.regions.mask_BR)
    image_BE = regions_lib.normalise(
        module.image_projection(image_BD)
        + module.region_projection(embedded_BD))
    text_BE = regions_lib.normalise(module.text_projection(text_BD))
    return (module.match_logits(encoded),
            module.match_logits(encoded._replace(product_BE=None)),
            (image_BE * text_BE) @ params['match_product'])

  logits_B, first_B, product_B = nn.apply(parts, m3p.M3P(config))(
      {'params': params})
  assert np.abs(product_B).min() > 1e-3
  np.testing.assert_allclose(
      logits_B, first_B + m3p.FIRST_LOGIT_SCALE * product_B, rtol=1e-5)


def test_config_names_what_is_wrong():
  with pytest.raises(ValueError, match="match_head is 'second'"):
    model_config.ModelConfig(match_head='second')

  with pytest.raises(ValueError, match='num_heads must divide'):
    model_config.ModelConfig(width=10, num_heads=3)
  with pytest.raises(ValueError, match="dtype is 'float8'"):
    model_config.options(dict(base.model_config(), dtype='float8'))
