"""Properties of the objectives: nothing leaks, labels are right, weights add.
"""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3p_jax.model import m3p
from m3p_jax.objectives import captioning
from m3p_jax.objectives import contrastive
from m3p_jax.objectives import masked_lm
from m3p_jax.objectives import masked_region
from m3p_jax.objectives import masking
from m3p_jax.objectives import matching
from m3p_jax.objectives import negatives
from m3p_jax.objectives import region_alignment
from m3p_jax.objectives import retrieval
from tests import models

KEY = jax.random.key(3)


def test_hidden_tokens_cannot_be_read_from_the_corrupted_batch():
  batch = models.batch(rows=8)
  masked = masking.mask_tokens(batch, KEY, rate=0.3)
  # Other words at the same positions give the same corrupted rows wherever a
  # token was replaced.
  rows_B1 = np.arange(8)[:, None]
  shown_BP = masked.batch.token_ids_BL[rows_B1, masked.positions_BP]
  original_BP = batch.token_ids_BL[rows_B1, masked.positions_BP]
  replaced_BP = (shown_BP != original_BP) & (masked.weights_BP > 0)
  assert replaced_BP.any()
  other_ids_BL = batch.token_ids_BL.at[rows_B1, masked.positions_BP].set(
      jnp.where(replaced_BP, 4321, original_BP))
  again = masking.mask_tokens(
      batch._replace(token_ids_BL=other_ids_BL), KEY, rate=0.3)
  np.testing.assert_array_equal(
      masked.batch.token_ids_BL, again.batch.token_ids_BL)


def test_masking_never_chooses_special_tokens_and_counts_are_right():
  batch = models.batch(rows=64, length=23)
  masked = masking.mask_tokens(batch, KEY, rate=0.15)
  rows_B1 = np.arange(64)[:, None]
  original_BP = np.asarray(batch.token_ids_BL[rows_B1, masked.positions_BP])
  chosen_BP = np.asarray(masked.weights_BP) > 0
  assert (original_BP[chosen_BP] >= masking.FIRST_WORD_ID).all()
  # 23 columns: <s>, 19 words, </s>, two of padding.
  assert (chosen_BP.sum(1) == round(0.15 * 19)).all()
  unchosen = np.asarray(masked.batch.token_ids_BL != batch.token_ids_BL)
  assert unchosen.sum() <= chosen_BP.sum()


def test_masking_shares_are_80_10_10():
  batch = models.batch(rows=2000, length=23)
  masked = masking.mask_tokens(batch, KEY, rate=0.15)
  rows_B1 = np.arange(2000)[:, None]
  shown_BP = masked.batch.token_ids_BL[rows_B1, masked.positions_BP]
  kept_BP = shown_BP == batch.token_ids_BL[rows_B1, masked.positions_BP]
  chosen = masked.weights_BP.sum()
  share = lambda x: float((x * masked.weights_BP).sum() / chosen)
  assert abs(share(shown_BP == masking.MASK_ID) - 0.8) < 0.02
  assert abs(share(kept_BP) - 0.1) < 0.02


def test_every_row_predicts_at_least_one_token():
  batch = models.batch(rows=3, length=5)  # <s>, one word, </s>, 2 padding
  masked = masking.mask_tokens(batch, KEY, rate=0.15)
  np.testing.assert_array_equal(masked.weights_BP.sum(1), [1, 1, 1])


def test_zeroed_regions_cannot_be_read_from_anywhere():
  batch = models.batch(rows=16)

  def outputs(features_BRF):
    changed = batch._replace(
        regions=batch.regions._replace(features_BRF=features_BRF))
    masked = masking.mask_regions(changed, KEY, rate=0.3)
    encoded = models.call(
        lambda m, b: m.encode(b, deterministic=True), masked.batch)
    return encoded.text_BLD.sum() + jnp.square(encoded.regions_BRD).sum()

  masked = masking.mask_regions(batch, KEY, rate=0.3)
  is_zero_BR = np.asarray((masked.batch.regions.features_BRF == 0).all(-1))
  gradient_BRF = np.asarray(jax.grad(outputs)(batch.regions.features_BRF))
  assert is_zero_BR.any()
  assert np.abs(gradient_BRF[is_zero_BR]).max() == 0
  assert (np.abs(gradient_BRF[~is_zero_BR]).max(-1) > 0).all()


def test_regions_that_hold_a_zeroed_one_are_zeroed_with_it():
  batch = models.batch(rows=32)
  # Region 0 becomes the whole picture: it holds every other.
  boxes_BRG = batch.regions.boxes_BRG.at[:, 0].set(
      jnp.asarray([0, 0, 1, 1, 1.0]))
  batch = batch._replace(regions=batch.regions._replace(boxes_BRG=boxes_BRG))
  masked = masking.mask_regions(batch, KEY, rate=0.2)
  is_zero_BR = np.asarray((masked.batch.regions.features_BRF == 0).all(-1))
  hidden = is_zero_BR[:, 1:].any(1)
  assert hidden.any()
  assert is_zero_BR[hidden, 0].all()


  # The release's rule: nothing but what was chosen.
  alone = masking.mask_regions(batch, KEY, rate=0.2, max_overlap=1.0)
  is_zero_BR = np.asarray((alone.batch.regions.features_BRF == 0).all(-1))
  assert is_zero_BR.any()
  assert (is_zero_BR.sum(1) <= alone.weights_BP.sum(1)).all()


def test_background_is_never_masked():
  batch = models.batch(rows=32)
  class_ids_BR = batch.regions.class_ids_BR.at[:, :4].set(0)
  batch = batch._replace(
      regions=batch.regions._replace(class_ids_BR=class_ids_BR))
  masked = masking.mask_regions(batch, KEY, rate=0.5)
  chosen_BP = np.asarray(masked.positions_BP)[
      np.asarray(masked.weights_BP) > 0]
  assert (chosen_BP == 4).all()


def test_symmetric_cross_entropy_by_hand():
  logits_BB = jnp.asarray([[2.0, 0.0], [1.0, 3.0]])
  by_hand = [
      0.5 * (np.log(np.exp(2) + 1) - 2 + np.log(np.exp(2) + np.exp(1)) - 2),
      0.5 * (np.log(np.exp(1) + np.exp(3)) - 3 + np.log(1 + np.exp(3)) - 3)]
  np.testing.assert_allclose(contrastive.symmetric_cross_entropy(
      logits_BB, jnp.asarray([0, 1])), by_hand, rtol=1e-5)
  # Equal ids: each row stands alone, so there is nothing to get wrong.
  np.testing.assert_allclose(contrastive.symmetric_cross_entropy(
      logits_BB, jnp.asarray([5, 5])), [0, 0], atol=1e-6)


def test_equal_image_ids_are_never_negatives():
  image_id_B = jnp.asarray([1, 1, 2, 2, 3])
  for seed in range(50):
    index_BN, valid_BN = negatives.draw(
        jax.random.key(seed), jnp.zeros((5, 5)), image_id_B, count=4)
    same_BN = image_id_B[index_BN] == image_id_B[:, None]
    assert not bool((same_BN & valid_BN).any())
    np.testing.assert_array_equal(valid_BN.sum(1), [3, 3, 3, 3, 4])
    for row, valid in zip(index_BN, valid_BN, strict=True):
      assert len(set(row[valid].tolist())) == int(valid.sum())


def test_hard_negatives_are_drawn_more_often():
  scores_BB = jnp.asarray([[0, 5.0, 0], [0, 0, 0], [0, 0, 0]])
  draws = [int(negatives.draw(
      jax.random.key(i), scores_BB, jnp.arange(3), count=1)[0][0, 0])
           for i in range(40)]
  assert draws.count(1) > 30


@pytest.mark.parametrize('num_anchors, asked', [
    (0, [0, 1, 2, 3]), (4, [0, 1, 2, 3]), (2, [0, 2]), (1, [0])])
def test_the_references_loss_by_hand(num_anchors, asked):
  """Each direction is the mean of its candidates' binary cross-entropy."""
  batch = models.batch()

  def run(model, batch):
    mean, _ = retrieval.loss(
        model, batch, KEY, num_candidates=4, num_anchors=num_anchors)
    # Four candidates of four rows are all there are, whatever is drawn.
    index = jnp.arange(4)
    logits_44 = model.match_logits(model.encode(negatives.pair(
        batch, jnp.repeat(index, 4), jnp.tile(index, 4)))).reshape(4, 4)
    return mean, logits_44

  mean, logits_44 = models.call(run, batch)
  nats_44 = np.log1p(np.exp(np.where(np.eye(4), -logits_44, logits_44)))
  by_hand = 0.5 * (nats_44.mean(0) + nats_44.mean(1))
  assert float(mean.weight) == len(asked)
  np.testing.assert_allclose(mean.total, by_hand[asked].sum(), rtol=1e-5)


def test_hard_negatives_cross_languages_but_not_groups():
  # Rows 0 and 1 are one picture in two languages, rows 2 and 3 another.
  image_id_B = jnp.asarray([7, 7, 8, 8])
  scores_BB = jnp.asarray([[9., 9., 0., 8.]] * 4)
  index_BN, valid_BN = negatives.draw(
      jax.random.key(0), scores_BB, image_id_B, count=2)
  assert np.asarray(valid_BN).all()
  assert sorted(index_BN[0].tolist()) == [2, 3]
  assert sorted(index_BN[2].tolist()) == [0, 1]


def _regions_of_one_group(batch):
  return batch._replace(regions=batch.regions._replace(
      image_id_B=jnp.zeros_like(batch.regions.image_id_B)))


def test_matching_asks_for_a_picture_with_its_own_and_another_caption():
  rows = models.batch()

  class Model:

    def match_rows(self, pairs):
      picture_P, ids_PL = pairs.regions.image_id_B, pairs.token_ids_BL
      np.testing.assert_array_equal(pairs.regions.features_BRF,
                                    rows.regions.features_BRF[picture_P])
      captions = [[row.tolist() for row in rows.token_ids_BL].index(
          ids_L.tolist()) for ids_L in ids_PL]
      self.is_own_P = np.array(captions) == picture_P
      assert sorted(picture_P.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
      return jnp.where(self.is_own_P, 9.0, -9.0)

  model = Model()
  mean, extra = matching.loss(model, rows, KEY)
  assert model.is_own_P.sum() == 4
  assert float(mean.compute()) < 1e-3 and float(
      extra['accuracy'].compute()) == 1


def test_matching_without_valid_negatives_counts_right_pairs_only():
  mean, _ = models.call(lambda m, b: matching.loss(m, b, KEY),
                        _regions_of_one_group(models.batch()))
  assert float(mean.weight) == 4
  mean, _ = models.call(
      lambda m, b: matching.loss(m, b, KEY), models.batch())
  assert float(mean.weight) == 8


@pytest.mark.parametrize('kind', ['random', 'hard'])
@pytest.mark.parametrize('num_anchors', [4, 2])
def test_the_softmax_on_top_of_the_dual_encoder_by_hand(kind, num_anchors):
  def run(model, batch):
    index = jnp.arange(4)
    match_44 = model.match_logits(model.encode(negatives.pair(
        batch, jnp.repeat(index, 4), jnp.tile(index, 4)))).reshape(4, 4)
    return retrieval.loss(
        model, batch, KEY, num_candidates=4, num_anchors=num_anchors,
        negatives=kind, binary_weight=0.0, softmax_weight=1.0,
        add_dual_score=True), match_44 + negatives.dual_scores(model, batch)

  (mean, extra), scores_44 = models.call(run, models.batch())
  scores_44, asked = np.asarray(scores_44), slice(None, None, 4 // num_anchors)
  right_4 = scores_44.diagonal()
  nats_4 = 0.5 * sum(
      np.log(np.exp(scores_44).sum(axis)) for axis in (0, 1)) - right_4
  is_first_4 = right_4 >= np.maximum(scores_44.max(0), scores_44.max(1))
  assert float(mean.weight) == num_anchors
  np.testing.assert_allclose(mean.total, nats_4[asked].sum(), rtol=1e-4)
  assert float(extra['accuracy'].total) == is_first_4[asked].sum()


def test_objectives_give_finite_gradients_and_weights():
  def total(params, batch):
    def run(model, batch):
      means = [
          masked_lm.loss(model, batch, KEY)[0],
          masked_lm.loss(model, batch._replace(regions=None), KEY)[0],
          masked_region.loss(model, batch, KEY)[0],
          matching.loss(model, batch, KEY)[0],
          contrastive.loss(model, batch, KEY)[0],
          region_alignment.loss(model, batch, KEY)[0],
          retrieval.loss(model, batch, KEY, negatives='hard')[0]]
      return sum(mean.compute() for mean in means)
    return models.call(run, batch, params=params)

  _, params = models.tiny()
  gradients = jax.jit(jax.grad(total))(params, models.batch())
  for path, leaf in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(leaf).all(), path


def test_warm_start_continues_in_the_whole_model():
  # A picture's projection starts at zero, so what the warm start has learned
  # is where contrastive training begins.
  batch = models.batch()
  whole, _ = models.call(lambda m, b: contrastive.loss(m, b, KEY), batch)
  start, _ = models.call(lambda m, b: region_alignment.loss(m, b, KEY), batch)
  np.testing.assert_allclose(whole.total, start.total, rtol=1e-5)


def test_batch_without_words_has_no_weight_and_finite_gradient():
  batch = models.batch()
  batch = batch._replace(
      token_ids_BL=jnp.full_like(batch.token_ids_BL, 2), regions=None)

  def total(params):
    return models.call(lambda m, b: masked_lm.loss(m, b, KEY)[0], batch,
                       params=params).compute()

  _, params = models.tiny()
  value, gradients = jax.value_and_grad(total)(params)
  assert float(value) == 0
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize('options, message', [
    (dict(negatives='easy'), "negatives is 'easy'"),
    (dict(num_candidates=9), 'num_candidates is 9'),
    (dict(num_anchors=3), 'num_anchors is 3'),
    (dict(num_anchors=-2), 'num_anchors is -2')])
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    models.call(lambda m, b: retrieval.loss(m, b, KEY, **options),
                models.batch())


@pytest.mark.parametrize('objective, options', [
    (captioning, dict(sampled_words=64)), (contrastive, {}), (masked_lm, {}),
    (masked_region, {}), (matching, {}), (region_alignment, {}),
    (retrieval, {})], ids=lambda one: getattr(one, '__name__', None))
def test_nothing_is_conditional(objective, options):
  """A collective in a branch would have no order beside those outside."""
  module, params = _writer()
  batch = models.short_words(models.batch(rows=8))

  def total(params):
    return nn.apply(lambda model: objective.loss(
        model, batch, KEY, **options)[0].total, module)(
            {'params': params}, rngs={'dropout': KEY})

  traced = str(jax.make_jaxpr(jax.grad(total))(params))
  assert 'dot_general' in traced and 'cond[' not in traced


def test_masked_lm_by_hand_for_a_uniform_model():
  # All-zero word table and bias: every word has probability 1/V.
  _, params = models.tiny()
  flat = dict(params, tokens=jax.tree.map(jnp.zeros_like, params['tokens']))
  mean, _ = models.call(
      lambda m, b: masked_lm.loss(m, b, KEY), models.batch(), params=flat)
  np.testing.assert_allclose(mean.compute(), np.log(250_002), rtol=1e-5)


@functools.cache
def _writer():
  """Returns (module, params) of the tiny model with a decoder."""
  config = dataclasses.replace(models.SHORT, decoder=True)
  return m3p.M3P(config), jax.jit(
      lambda key: nn.unbox(m3p.init_params(config, key)))(jax.random.key(0))


@jax.jit
def _captioning(params, batch):
  return nn.apply(
      lambda model: captioning.loss(model, batch, KEY), _writer()[0])(
          {'params': params})


def test_captioning_is_the_mean_over_all_tokens_and_the_end():
  module, params = _writer()
  batch = models.short_words(models.batch(rows=2))

  def logits(model):
    memory = model.encode_images(batch.regions), batch.regions.mask_BR
    return jax.nn.log_softmax(model.token_logits(model.decode(
        batch.token_ids_BL, batch.text_mask_BL, memory, batch.language_B)))

  log_prob_BLV = np.asarray(nn.apply(logits, module)({'params': params}))
  ids_BL = np.asarray(batch.token_ids_BL)
  # Of 9 columns: `<s>` is given, six words and `</s>` are written.
  expected = -np.mean([log_prob_BLV[row, i, ids_BL[row, i + 1]]
                       for row in range(2) for i in range(6)])
  mean, others = _captioning(params, batch)
  np.testing.assert_allclose(mean.compute(), expected, rtol=1e-5)
  assert mean.weight == others['accuracy'].weight == 12


def test_captioning_reads_no_later_token_and_the_picture_and_the_language():
  module, params = _writer()
  batch = models.short_words(models.batch(rows=2))

  def states(ids_BL, features_BRF, language_B):
    regions = batch.regions._replace(features_BRF=features_BRF)
    return nn.apply(lambda model: model.decode(
        ids_BL, batch.text_mask_BL,
        (model.encode_images(regions), regions.mask_BR), language_B), module)(
            {'params': params})

  given = (batch.token_ids_BL, batch.regions.features_BRF, batch.language_B)
  before = states(*given)
  after = states(given[0].at[:, 4].set(77), *given[1:])
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert np.abs(before - after)[:, 4].max() > 1e-4
  for other in ((given[0], -given[1], given[2]),
                (given[0], given[1], 1 + given[2])):
    assert np.abs(before - states(*other))[:, 0].max() > 1e-4


def test_words_are_sampled_in_training_alone():
  module, params = _writer()
  batch = models.short_words(models.batch(rows=2))

  def loss(rngs, **options):
    return nn.apply(lambda model: captioning.loss(
        model, batch, KEY, **options)[0].compute(), module)(
            {'params': params}, rngs=rngs)

  whole = loss({})
  assert loss({}, sampled_words=256) == whole
  training = {'dropout': KEY}
  no_dropout = loss(training)
  sampled = loss(training, sampled_words=256)
  # Of 500 words some are left out: near, and not the same.
  assert 0 < abs(sampled - no_dropout) < 0.3


def test_captioning_without_a_token_is_zero_with_a_finite_gradient():
  _, params = _writer()
  batch = models.short_words(models.batch(rows=2))
  batch = batch._replace(text_mask_BL=batch.text_mask_BL.at[:, 1:].set(False))
  loss, gradient = jax.value_and_grad(
      lambda params: _captioning(params, batch)[0].compute())(params)
  assert loss == 0
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
