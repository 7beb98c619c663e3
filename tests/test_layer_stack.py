"""The last layer where it is read: the same states, and nothing more."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3p_jax.model import initial
from m3p_jax.model import m3p
from tests import models
from tests.test_lean import close

_POSITIONS = jnp.array([[1, 2], [0, 2], [2, 2], [1, 0]])


def _model(**changes):
  config = dataclasses.replace(models.SHORT, **changes)
  params = jax.jit(lambda key: nn.unbox(initial.init_params(config, key)))(
      jax.random.key(0))
  return m3p.M3P(config), params


def _rows(has_regions=True):
  batch = models.short_words(models.batch())
  return batch if has_regions else batch._replace(regions=None)


def _whole(model, batch):
  encoded = model.encode(batch)

  def gather(hidden_BTD):
    return jnp.take_along_axis(hidden_BTD, _POSITIONS[..., None], axis=1)

  text = gather(encoded.text_BLD)
  if batch.regions is None:
    return text,
  return text, gather(encoded.regions_BRD), model.match_logits(encoded)


def _read(model, batch):
  text = model.read_text(batch, _POSITIONS)
  if batch.regions is None:
    return text,
  return text, model.read_regions(batch, _POSITIONS), model.match_rows(batch)


def _with_gradients(function, model, params, batch):

  def total(params):
    found = nn.apply(function, model)({'params': params}, batch)
    keys = jax.random.split(jax.random.key(1), len(found))
    return sum((part * jax.random.normal(key, part.shape)).sum()
               for part, key in zip(found, keys, strict=True)), found

  (_, found), gradients = jax.jit(
      jax.value_and_grad(total, has_aux=True))(params)
  # It adds the same to all logits of a head: its gradient is rounding alone.
  del gradients['encoder']['attention']['key']['bias']
  return found, gradients


@pytest.mark.parametrize('changes', [
    {}, {'num_layers': 1}, {'remat': 'full'}, {'remat': 'lean'},
    {'match_head': 'first+product'}], ids=str)
@pytest.mark.parametrize('has_regions', [True, False])
def test_states_and_gradients_are_those_of_whole_layers(changes, has_regions):
  model, params = _model(**changes)
  batch = _rows(has_regions)
  close(_with_gradients(_read, model, params, batch),
        _with_gradients(_whole, model, params, batch), 1e-5)


def _states(model, params, function, key):
  return nn.apply(function, model)(
      {'params': params}, rngs={'dropout': jax.random.key(key)})


def test_dropout_is_that_of_whole_layers():
  # All positions in order draw what the whole layer draws; weights do not.
  model, params = _model(dropout=0.3, attention_dropout=0.0)
  batch = _rows(has_regions=False)
  position_BP = jnp.broadcast_to(
      jnp.arange(batch.token_ids_BL.shape[1]), batch.token_ids_BL.shape)

  def read(model):
    return model.read_text(batch, position_BP)

  whole = _states(
      model, params, lambda model: model.encode(batch).text_BLD, 0)
  close(_states(model, params, read, 0), whole, 1e-5)
  assert np.abs(_states(model, params, read, 1) - whole).max() > 1e-3


def test_dropped_weights_take_the_values_bias_with_them():
  model, params = _model(dropout=0.0, attention_dropout=0.5, num_layers=1)
  value = params['encoder']['attention']['value']
  value['kernel'], value['bias'] = (
      jnp.zeros_like(value['kernel']), jnp.ones_like(value['bias']))

  def read(model):
    return model.read_text(_rows(), _POSITIONS)

  first = _states(model, params, read, 0)
  np.testing.assert_array_equal(first, _states(model, params, read, 0))
  assert np.abs(first - _states(model, params, read, 1)).max() > 1e-4


def test_bfloat16_is_near_float32():
  model, params = _model()
  fast, _ = _model(dtype='bfloat16')
  close(*(jax.tree.map(lambda x: x.astype(jnp.float32), _with_gradients(
      _read, each, params, _rows())) for each in (fast, model)), 0.1)
