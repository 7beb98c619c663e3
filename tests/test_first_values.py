"""The heads' data-dependent first values, and what they are counted from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import first_values
from m3p_jax.objectives import frequencies
from m3p_jax.objectives import masked_lm
from m3p_jax.objectives import masked_region
from tests import models


def test_pooler_sees_centred_states_and_nothing_else_changes():
  module, params = models.tiny()
  batches = [models.batch(rows=16, seed=seed) for seed in range(4)]
  fitted = first_values.centre_match_head(
      module, params, batches, jax.random.key(0))
  assert set(fitted) == set(params)
  for name in set(params) - {'pooler', 'match'}:
    jax.tree.map(np.testing.assert_array_equal, fitted[name], params[name])

  def inputs(model, batch):
    encoded = model.encode(batch, deterministic=True)
    return model.pooler(encoded.regions_BRD[:, 0])

  old, new = (
      jnp.concatenate([models.call(inputs, b, params=p) for b in batches])
      for p in (params, fitted))
  bias = params['pooler']['bias']
  # A right pair's states have the mean of all, but for the wrong pairs' noise.
  assert np.abs((new - bias).mean(0)).max() < 0.3
  def states(model, batch):
    return model.encode(batch, deterministic=True).regions_BRD[:, 0]

  spread = float(jnp.concatenate(
      [models.call(states, b) for b in batches]).std(0).mean())
  # Divided by the spread of right and wrong pairs, here known by the right.
  np.testing.assert_allclose(
      float(old.std(0).mean() / new.std(0).mean()), spread, rtol=0.1)
  # Only place and scale differ: what told two rows apart still does.
  np.testing.assert_allclose(
      np.corrcoef(np.asarray(old - old.mean(0)).ravel(),
                  np.asarray(new - new.mean(0)).ravel())[0, 1], 1, atol=1e-4)


def test_frequencies_count_what_may_be_masked():
  batch = models.batch(rows=3, length=9, num_regions=4)
  ids_BL = np.full((3, 9), 1, np.int32)
  ids_BL[:, :4] = [[0, 7, 7, 2], [0, 7, 9, 2], [0, 8, 250_001, 2]]
  classes_BR = np.array([[1, 1, 0, 3], [1, 2, 0, 3], [1, 1, 1, 1]], np.int32)
  mask_BR = np.ones((3, 4), bool)
  mask_BR[2, 1:] = False
  features_BRF = np.ones((3, 4, 2), np.float32)
  features_BRF[0, 0] = 8.0  # One of seven objects.
  batch = batch._replace(
      token_ids_BL=ids_BL, text_mask_BL=ids_BL != 1,
      regions=batch.regions._replace(
          features_BRF=features_BRF, class_ids_BR=classes_BR,
          mask_BR=mask_BR))
  found = frequencies.count(
      [{'image_text': batch, 'text': batch._replace(regions=None)}],
      vocab_size=250_112, num_classes=5)
  # 5 words of 3 kinds: the unseen share 3 / (5 + 3).
  share_V = np.exp(found['image_text'].log_token_V.astype(np.float64))
  np.testing.assert_allclose(share_V[[7, 8, 9]], [3 / 8, 1 / 8, 1 / 8])
  np.testing.assert_allclose(share_V.sum(), 1, rtol=1e-5)
  assert share_V[1] == share_V[100] > 0
  # 7 objects of 3 kinds; classes 0 and 4 share 3 / 10.
  np.testing.assert_allclose(
      np.exp(found['image_text'].log_class_C),
      [0.15, 0.4, 0.1, 0.2, 0.15], rtol=1e-5)
  np.testing.assert_allclose(found['image_text'].feature_F, [2.0, 2.0])
  assert found['text'].log_class_C is None
  mixed = frequencies.mixture(found)
  np.testing.assert_allclose(mixed.log_token_V, found['text'].log_token_V,
                             rtol=1e-5)
  np.testing.assert_array_equal(mixed.feature_F, [2.0, 2.0])


def test_masked_heads_begin_at_the_baseline():
  """A head that sees nothing but its bias has the baseline's very losses."""
  _, params = models.tiny()
  batch = models.batch(rows=8)
  known = frequencies.count(
      [{'image_text': jax.tree.map(np.asarray, batch)}],
      vocab_size=models.TINY.padded_vocab_size,
      num_classes=models.TINY.num_region_classes)['image_text']
  fitted = first_values.fit_masked_heads(params, known)
  fitted['tokens'] = jax.tree.map(jnp.zeros_like, fitted['tokens'])
  for objective, pairs in (
      (masked_lm, {'loss': 'unigram_loss'}),
      (masked_region, {'class_loss': 'class_unigram_loss',
                       'feature_loss': 'mean_feature_loss'})):
    loss = functools.partial(objective.loss, baseline=known)
    mean, metrics = models.call(
        loss, batch, jax.random.key(0), params=fitted)
    metrics['loss'] = mean
    for name, baseline in pairs.items():
      # Softmax spreads over the words alone; the table's padding has none.
      np.testing.assert_allclose(
          float(metrics[name].compute()), float(metrics[baseline].compute()),
          rtol=1e-3)


def test_the_end_of_a_text_counts_where_texts_are_written():
  module, params = models.tiny()
  batch = models.batch(rows=8)
  known = frequencies.count(
      [{'image_text': jax.tree.map(np.asarray, batch)}],
      vocab_size=models.TINY.padded_vocab_size,
      num_classes=models.TINY.num_region_classes)
  masked, written = (
      first_values.fit(module, params, [], known, jax.random.key(0),
                       writes=writes)['token_bias'] for writes in (False, True))
  np.testing.assert_array_equal(masked, known['image_text'].log_token_V)
  np.testing.assert_array_equal(written, known['image_text'].log_written_V())
  assert written[2] > masked[2]
