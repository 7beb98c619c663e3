"""Parts that weights lack are added to them; what they have stays."""

import functools

from flax import linen as nn
import jax
import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax import checkpoint
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax.convert import layout
from m3p_jax.model import m3p
from tests import toy

KEY = jax.random.key(5)


def config(weights, **changes):
  return toy.config(('captioning', {}), init_from=str(weights), **changes)


@functools.cache
def geometry():
  """Returns that of weights without languages and without a decoder."""
  made = toy.config()
  return startup.model_config(toy.config(
      model__num_languages=1, model__text_position=made.model.text_position))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """Returns the folder of such weights."""
  folder = tmp_path_factory.mktemp('weights') / 'weights'
  params = jax.jit(lambda key: nn.unbox(m3p.init_params(geometry(), key)))(
      jax.random.key(1))
  checkpoint.save_weights(folder, params, geometry(), {'languages': ['en']})
  return folder


def first_params(asked, workdir):
  """Returns (start, first parameters by path) of a run."""
  start = startup.resolve(asked, workdir)
  return start, layout.flatten(startup.initial_params(
      start, asked, sharding.make_mesh(devices=jax.devices()[:1]), KEY))


def test_what_a_task_needs_is_fresh_and_all_else_bit_for_bit(
    weights, tmp_path):
  start, found = first_params(config(weights), tmp_path / 'run')
  assert start.config.decoder and start.config.num_languages == 3
  assert start.languages == toy.LANGUAGES
  assert start.fresh == (
      'encoder/cross_attention: 288 numbers',
      'encoder/cross_attention_norm: 16 numbers', 'languages: 24 numbers')
  had = layout.flatten(checkpoint.load(weights)[0])
  for path, value in had.items():
    np.testing.assert_array_equal(found[path], value, path)
  # As a model that begins with nothing has them, of the same seed.
  fresh = layout.flatten(nn.unbox(m3p.init_params(start.config, KEY)))
  added = sorted(found.keys() - had.keys())
  assert len(added) == 11
  for path in added[:-1]:
    np.testing.assert_allclose(found[path], fresh[path], rtol=1e-6)
  # Languages are read as before, until they are learned.
  assert added[-1] == 'languages/embedding' and not found[added[-1]].any()


def test_weights_that_have_a_part_keep_it(weights, tmp_path):
  start, found = first_params(config(weights), tmp_path / 'run')
  folder = tmp_path / 'with'
  checkpoint.save_weights(folder, layout.nested(found), start.config,
                          {'languages': list(start.languages)})
  again, kept = first_params(config(folder, seed=3), tmp_path / 'other')
  assert not again.fresh
  for path, value in found.items():
    np.testing.assert_array_equal(kept[path], value, path)


def test_a_head_that_the_config_asks_for_is_added_without_a_task(
    weights, tmp_path):
  asked = toy.config(init_from=str(weights), model__caption_match=True)
  start, found = first_params(asked, tmp_path / 'run')
  assert start.fresh == ('caption_match: 9 numbers',
                         'caption_pooler: 72 numbers')
  # A config's languages are those of its first weights: no table.
  assert start.config.num_languages == 1
  assert 'caption_match/kernel' in found


def test_what_cannot_be_added_is_refused(weights, tmp_path):
  asked = config(weights, model__refiner_layers=2)
  with pytest.raises(errors.UserError, match='refiner_layers is 2, but 0'):
    startup.resolve(asked, tmp_path / 'run', given=['model.refiner_layers'])
  # A run that goes on has moments for what it has.
  checkpoint.save_weights(tmp_path / 'old' / 'checkpoints' / '1',
                          checkpoint.load(weights)[0], geometry(), {})
  with pytest.raises(errors.UserError, match='model.decoder=True, but it is '
                     'False in .* gets no new parts'):
    startup.resolve(config(''), tmp_path / 'old')
