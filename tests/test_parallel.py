"""Two texts that say the same: masked together, matched, translated."""

import dataclasses
import functools
import json

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax import train
from m3p_jax.generation import captions
from m3p_jax.generation import scores
from m3p_jax.model import m3p
from m3p_jax.objectives import caption_matching
from m3p_jax.objectives import captioning
from m3p_jax.objectives import masked_lm
from m3p_jax.objectives import masking
from m3p_jax.objectives import negatives
from m3p_jax.objectives import parallel
from tests import models
from tests import toy

KEY = jax.random.key(3)
CONFIG = dataclasses.replace(models.SHORT, decoder=True, caption_match=True)


@functools.cache
def model():
  """Returns (module, params) of the tiny model with all heads."""
  return m3p.M3P(CONFIG), jax.jit(
      lambda key: nn.unbox(m3p.init_params(CONFIG, key)))(jax.random.key(0))


def rows(has_picture=True):
  """Returns rows in language 0, whose sources in language 2 are shorter."""
  batch = models.short_words(models.batch())
  source = models.short_words(models.batch(length=7, seed=1))
  return batch._replace(
      regions=batch.regions if has_picture else None, extra={
          'source_ids_BL': source.token_ids_BL,
          'source_mask_BL': source.text_mask_BL,
          'source_language_B': jnp.full(4, 2)})


# Compiled once for all tests.


@functools.partial(jax.jit, static_argnames='use_picture')
def states(params, batch, *, use_picture=True):
  return nn.apply(lambda m: m.encode(parallel.join(
      batch, use_picture=use_picture)).text_BLD, model()[0])({'params': params})


@functools.partial(jax.jit, static_argnames=('objective', 'use_picture'))
def loss(params, batch, *, objective, use_picture=True):
  return nn.apply(lambda m: objective.loss(
      m, batch, KEY, use_picture=use_picture), model()[0])({'params': params})


def test_both_texts_are_masked():
  joined = parallel.join(rows())
  assert joined.token_ids_BL.shape == (4, 16)
  masked = masking.mask_tokens(joined, KEY, rate=1.0)
  chosen = np.asarray(masked.positions_BP)[np.asarray(masked.weights_BP) > 0]
  # 3 words of the source, 5 of the text: special tokens are in between.
  assert set(chosen) == {1, 2, 3, *range(8, 13)}
  mean, others = loss(model()[1], rows(), objective=masked_lm)
  assert mean.weight == others['accuracy'].weight == 4 * round(0.15 * 8)


CASES = [(True, True), (True, False), (False, True)]


@pytest.mark.parametrize('has_picture, use_picture', CASES)
def test_words_read_the_other_text_and_the_picture(has_picture, use_picture):
  batch = rows(has_picture)

  def read(batch):
    return np.asarray(states(model()[1], batch, use_picture=use_picture))

  before = read(batch)
  other = batch._replace(extra=batch.extra | {
      'source_ids_BL': batch.extra['source_ids_BL'].at[:, 2].set(77)})
  assert np.abs(before - read(other))[:, 9].max() > 1e-4
  # Padding of the source, in the middle of the row, is read by nobody.
  padded = batch._replace(extra=batch.extra | {
      'source_ids_BL': batch.extra['source_ids_BL'].at[:, 6].set(77)})
  np.testing.assert_array_equal(before, read(padded))
  if has_picture:
    turned = batch._replace(regions=batch.regions._replace(
        features_BRF=-batch.regions.features_BRF))
    assert (np.abs(before - read(turned)).max() > 1e-4) == use_picture


def test_each_text_has_its_language():
  batch = rows(has_picture=False)
  np.testing.assert_array_equal(
      parallel.join(batch).language_B[0], [2] * 7 + [0] * 9)
  same = batch._replace(extra=batch.extra | {
      'source_language_B': batch.language_B})
  one, two = (np.asarray(states(model()[1], x)) for x in (batch, same))
  assert np.abs(one - two).max() > 1e-3
  # A row of one language is read as it always was.
  joined = parallel.join(same)._replace(language_B=batch.language_B)
  alone = nn.apply(lambda m: m.encode(joined).text_BLD, model()[0])(
      {'params': model()[1]})
  np.testing.assert_allclose(two, alone, atol=1e-5)


@pytest.mark.parametrize('has_picture', [True, False])
def test_caption_matching_by_hand(has_picture):
  batch = rows(has_picture)
  mean, others = loss(model()[1], batch, objective=caption_matching)
  wrong_B1, _ = negatives.draw(
      KEY, jnp.zeros((4, 4)), jnp.arange(4), count=1)
  assert mean.weight == others['accuracy'].weight == 8

  def logits(m):
    pairs = [m.encode(parallel.join(batch._replace(
        token_ids_BL=batch.token_ids_BL[text_B],
        text_mask_BL=batch.text_mask_BL[text_B])))
             for text_B in (jnp.arange(4), wrong_B1[:, 0])]
    # Position 0 of the joint row is a region.
    return [m.caption_match_logits(
        one.regions_BRD if has_picture else one.text_BLD) for one in pairs]

  right, wrong = map(np.asarray, jax.jit(nn.apply(logits, model()[0]))(
      {'params': model()[1]}))
  by_hand = np.log1p(np.exp(-right)).sum() + np.log1p(np.exp(wrong)).sum()
  np.testing.assert_allclose(mean.total, by_hand, rtol=1e-5)


def test_pictures_of_one_group_are_no_wrong_pairs():
  batch = rows()
  batch = batch._replace(regions=batch.regions._replace(
      image_id_B=jnp.zeros(4, jnp.int32)))
  mean, _ = loss(model()[1], batch, objective=caption_matching)
  assert mean.weight == 4


@pytest.mark.parametrize('has_picture, use_picture', CASES)
def test_a_translation_reads_its_source(has_picture, use_picture):
  batch = rows(has_picture)

  def total(batch):
    mean, _ = loss(model()[1], batch, objective=captioning,
                   use_picture=use_picture)
    assert mean.weight == 4 * 6
    return float(mean.total)

  before = total(batch)
  assert before != total(batch._replace(extra=batch.extra | {
      'source_ids_BL': batch.extra['source_ids_BL'].at[:, 2].set(77)}))
  if has_picture:
    turned = batch._replace(regions=batch.regions._replace(
        features_BRF=-batch.regions.features_BRF))
    assert (before != total(turned)) == use_picture


def test_a_writer_reads_a_picture_beside_an_empty_text_and_its_language():
  module = m3p.M3P(dataclasses.replace(CONFIG, joint_memory=True))
  batch = rows()

  def read(extra, language_B):
    return nn.apply(lambda m: (
        parallel.memory(m, batch.regions, extra, language_B),
        m.add_language(jnp.zeros((4, 1, CONFIG.width)), language_B)), module)(
            {'params': model()[1]})

  (states_BSD, mask_BS), _ = read({}, None)
  assert mask_BS.shape == (4, batch.num_regions + 2) and mask_BS[:, -2:].all()
  # As a source that says nothing is read.
  nothing = {'source_ids_BL': jnp.tile(jnp.asarray([0, 2]), (4, 1)),
             'source_mask_BL': jnp.ones((4, 2), bool),
             'source_language_B': jnp.zeros(4, jnp.int32)}
  (same_BSD, _), _ = read(nothing, None)
  np.testing.assert_allclose(states_BSD, same_BSD, atol=1e-6)
  (other_BSD, _), added_B1D = read({}, jnp.asarray([0, 1, 2, 1]))
  assert jnp.abs(added_B1D).max() > 0.1
  np.testing.assert_allclose(other_BSD - states_BSD, jnp.broadcast_to(
      added_B1D, states_BSD.shape), atol=1e-5)


@pytest.mark.parametrize('has_picture', [True, False])
def test_objectives_of_two_texts_give_finite_gradients(has_picture):
  def total(params):
    return sum(loss(params, rows(has_picture), objective=one)[0].compute()
               for one in (masked_lm, caption_matching, captioning))

  gradients = jax.jit(jax.grad(total))(model()[1])
  for path, leaf in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(leaf).all(), path


def test_chrf_counts_characters():
  pytest.importorskip('sacrebleu', reason='optional: requirements-metrics.txt')
  score, signature = scores.chrf(['ein Hund'], [['ein Hund', 'x']])
  assert score == pytest.approx(100)
  assert scores.chrf(['ein Hund'], [['der Hunt']])[0] < 60
  assert 'nc:6' in signature


def make_config(**changes):
  config = toy.config(('captioning', dict(
      stream='parallel', data=dict(
          datasets=('pairs',), languages=('de', 'fr'), max_length=16))),
      model__max_positions=64, **changes)
  config.evaluation.update(dict(
      dataset='pairs', split='test', max_length=16))
  config.generate.update(dict(
      language=('de',), source='en', max_length=6, num_beams=2))
  return config


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Returns the workdir of two steps of translation."""
  workdir = tmp_path_factory.mktemp('run') / 'run'
  train.train_and_evaluate(make_config(), workdir)
  return workdir


def test_a_translator_is_trained_and_writes(run):
  found = captions.generate(make_config(), run)
  path = run / 'captions' / 'pairs_test_from_en.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(lines) == 9 and found['de']['with_references'] == 6
  assert all(line['source'] and line['language'] == 'de' for line in lines)
  config = make_config()
  config.generate.use_picture = False
  captions.generate(config, run)
  alone = run / 'captions' / 'pairs_test_from_en_alone.jsonl'
  scores_of = [[json.loads(line)['score'] for line in one.read_text(
      ).splitlines()] for one in (path, alone)]
  assert scores_of[0] != scores_of[1]


@pytest.mark.parametrize('changes, message', [
    (dict(source='it'), "generate.source 'it'"),
    (dict(source='', use_picture=False), 'use_picture is False')])
def test_what_cannot_be_translated_is_refused(run, changes, message):
  config = make_config()
  config.generate.update(changes)
  with pytest.raises(errors.UserError, match=message):
    captions.generate(config, run)
