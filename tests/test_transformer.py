"""The encoder: positions that are read, what is kept, what numbers say."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from m3p_jax.model import transformer
from m3p_jax.model import vocabulary
from m3p_jax.objectives import masked_lm
from m3p_jax.objectives import matching
from m3p_jax.planning import hlo_cost
from tests import models

KEY = jax.random.key(7)
POSITIONS_BP = jnp.asarray([[0, 3], [1, 1], [6, 2], [4, 5]])


def close(found, wanted, tolerance):
  """Asserts that two trees are equal, by the largest number of each leaf."""
  for path, leaf in jax.tree.leaves_with_path(wanted):
    other = functools.reduce(
        lambda tree, key: tree[getattr(key, 'key', getattr(key, 'idx', None))],
        path, found)
    np.testing.assert_allclose(
        other, leaf, atol=tolerance * (1e-3 + np.abs(leaf).max()),
        err_msg=jax.tree_util.keystr(path))


@functools.cache
def make_params(config):
  return jax.jit(lambda key: nn.unbox(m3p.init_params(config, key)))(
      jax.random.key(0))


def with_gradients(function, config, **options):
  """Returns (arrays of function(model), gradients of a sum of them)."""

  def total(params):
    found = nn.apply(function, m3p.M3P(
        config, model_config.Options(**options)))({'params': params})
    keys = jax.random.split(jax.random.key(1), len(found))
    return sum((part * jax.random.normal(key, part.shape)).sum()
               for part, key in zip(found, keys, strict=True)), found

  (_, found), gradients = jax.jit(
      jax.value_and_grad(total, has_aux=True))(make_params(config))
  # It adds the same to all logits of a head: its gradient is rounding alone.
  del gradients['encoder']['attention']['key']['bias']
  return list(found), gradients


def make_rows(has_regions):
  batch = models.short_words(models.batch())
  return batch if has_regions else batch._replace(regions=None)


@pytest.mark.parametrize('num_layers', [1, 3])
@pytest.mark.parametrize('has_regions', [True, False])
def test_states_that_are_read_are_those_of_whole_layers(
    num_layers, has_regions):
  config = dataclasses.replace(models.SHORT, num_layers=num_layers)
  batch = make_rows(has_regions)

  def read(model):
    yield model.encode(
        batch, read=batch.num_regions + POSITIONS_BP).read_BPD
    if has_regions:
      yield model.encode(batch, read=POSITIONS_BP % 5).read_BPD
      yield model.match_rows(batch)

  def whole(model):
    encoded = model.encode(batch)

    def gather(hidden_BTD, positions_BP):
      return jnp.take_along_axis(hidden_BTD, positions_BP[..., None], axis=1)

    yield gather(encoded.text_BLD, POSITIONS_BP)
    if has_regions:
      yield gather(encoded.regions_BRD, POSITIONS_BP % 5)
      yield model.match_logits(encoded)

  close(with_gradients(lambda model: list(read(model)), config),
        with_gradients(lambda model: list(whole(model)), config), 1e-5)


def test_every_layer_is_used_once_in_its_place():
  config = dataclasses.replace(models.SHORT, num_layers=3)
  params, batch = make_params(config), make_rows(True)

  def run(model, params):
    return nn.apply(lambda model: model.encode(batch).text_BLD, model)(
        {'params': params})

  found = run(m3p.M3P(config), params)
  for i in range(3):
    other = params | {'encoder': jax.tree.map(
        lambda x, i=i: x.at[i].multiply(1.5), params['encoder'])}
    assert np.abs(run(m3p.M3P(config), other) - found).max() > 1e-2
  # Nor is their order free.
  turned = params | {'encoder': jax.tree.map(
      lambda x: x[::-1], params['encoder'])}
  assert np.abs(run(m3p.M3P(config), turned) - found).max() > 1e-2


def test_bfloat16_is_near_float32():
  config = dataclasses.replace(models.SHORT, num_layers=2)
  def read(model):
    return [model.encode(make_rows(True), read=POSITIONS_BP).read_BPD.astype(
        jnp.float32)]
  close(with_gradients(read, config, dtype='bfloat16'),
        with_gradients(read, config), 0.1)


def test_dropout_is_drawn_for_each_layer_and_key():
  config = dataclasses.replace(models.SHORT, num_layers=3)
  options = model_config.Options(dropout=0.5, attention_dropout=0.5)

  def drop(model, key):
    def masks(module):
      x = jnp.ones((1, 4, config.width))
      return module.encoder(x, jnp.ones((1, 4), bool), deterministic=False)
    return nn.apply(masks, model, mutable=['intermediates'])(
        {'params': make_params(config)}, rngs={'dropout': key})[0]

  first = drop(m3p.M3P(config, options), jax.random.key(0))
  np.testing.assert_array_equal(
      first, drop(m3p.M3P(config, options), jax.random.key(0)))
  assert np.abs(
      first - drop(m3p.M3P(config, options), jax.random.key(1))).max() > 0.1


def _formats_of_products(jaxpr):
  """Yields the formats of both operands of each matrix product."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield [str(operand.aval.dtype) for operand in equation.invars]
    for value in equation.params.values():
      if hasattr(inner := getattr(value, 'jaxpr', value), 'eqns'):
        yield from _formats_of_products(inner)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('equation, x, kernel', [
    ('BTD,DHK->BTHK', (3, 4, 8), (8, 2, 5)),
    ('BPHK,HKD->BPD', (3, 4, 2, 5), (2, 5, 8)),
    ('NBTD,NDM->NBTM', (2, 3, 4, 8), (2, 8, 6))])
def test_a_product_has_the_derivatives_of_its_operands(
    equation, x, kernel, dtype):
  keys = jax.random.split(jax.random.key(0), 3)
  operands = [jax.random.normal(key, shape).astype(dtype)
              for key, shape in zip(keys, (x, kernel), strict=False)]
  found, backward = jax.vjp(
      lambda *operands: transformer.product(equation, *operands), *operands)
  # As the layers give it: rounded to their format.
  cotangent = jax.random.normal(keys[2], found.shape).astype(dtype).astype(
      jnp.float32)
  exact, exact_backward = jax.vjp(
      lambda *operands: jnp.einsum(equation, *operands),
      *(operand.astype(jnp.float32) for operand in operands))
  # A CPU takes four times as long for operands of two formats.
  assert list(_formats_of_products(
      jax.make_jaxpr(backward)(cotangent).jaxpr)) == [[dtype, dtype]] * 2
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
  for one, wanted in zip(
      backward(cotangent), exact_backward(cotangent), strict=True):
    assert one.dtype == dtype
    np.testing.assert_allclose(
        one.astype(jnp.float32), wanted.astype(dtype).astype(jnp.float32),
        rtol=1e-5 if dtype == 'float32' else 2 ** -7, atol=1e-5)


def _backward(remat, dtype='bfloat16'):
  """Returns an encoder's forward pass and its gradient, as JAX traces them."""
  options = dataclasses.replace(models.OPTIONS, dtype=dtype, remat=remat)
  encoder = transformer.Encoder(models.SHORT, options)
  x_BTD = jnp.zeros((2, 6, models.SHORT.width), dtype)
  mask_BT = jnp.ones((2, 6), bool)

  def total(params, x_BTD):
    return encoder.apply({'params': params}, x_BTD, mask_BT, deterministic=True
                         ).astype(jnp.float32).sum()

  params = nn.unbox(encoder.init(
      jax.random.key(0), x_BTD, mask_BT, deterministic=True)['params'])
  return [jax.make_jaxpr(function)(params, x_BTD) for function in (
      total, jax.grad(total, argnums=(0, 1)))]


@pytest.mark.parametrize(('remat', 'passes'), [
    ('none', 3), ('projections', 3), ('input', 4)])
def test_a_backward_pass_multiplies_twice_what_the_forward_pass_does(
    remat, passes):
  """And nothing again but what is not kept: `product` has rules of its own."""
  forward, gradient = map(hlo_cost.traced_flops, _backward(remat))
  np.testing.assert_allclose(gradient, passes * forward, rtol=0.1)


@pytest.fixture(scope='module')
def loss_and_gradients():
  """Returns a function of `remat`: a loss and its gradients."""
  config = dataclasses.replace(models.SHORT, num_layers=2)
  batch = models.short_words(models.batch())

  def of(remat):
    module = m3p.M3P(config, dataclasses.replace(models.OPTIONS, remat=remat))

    def losses(model):
      masked, _ = masked_lm.loss(model, batch, jax.random.key(1))
      matched, _ = matching.loss(model, batch, jax.random.key(2))
      return masked.compute() + matched.compute()

    loss, gradients = jax.jit(
        jax.value_and_grad(lambda params: nn.apply(losses, module)(
            {'params': params}, rngs={'dropout': jax.random.key(3)})))(
                make_params(config))
    return {'loss': loss} | gradients

  return of


@pytest.mark.parametrize('remat', ['projections', 'input'])
def test_what_is_kept_changes_no_number(loss_and_gradients, remat):
  """With dropout: its masks are drawn again for the backward pass."""
  close(loss_and_gradients(remat), loss_and_gradients('none'), 2e-5)


def kept_bytes(remat, num_layers):
  """Returns the bytes that the layers keep between the two passes."""
  config = dataclasses.replace(models.SHORT, num_layers=num_layers)
  module = m3p.M3P(config, dataclasses.replace(
      models.OPTIONS, dtype='bfloat16', remat=remat))
  batch = models.short_words(models.batch(rows=8, length=20))

  def backward(params):
    return jax.vjp(lambda params: nn.apply(
        lambda model: model.encode(batch).text_BLD, module)(
            {'params': params}, rngs={'dropout': jax.random.key(0)}), params)[1]

  params = nn.unbox(m3p.abstract_params(config))
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(
      jax.eval_shape(backward, params)))


def test_a_layer_keeps_what_its_remat_says():
  kept = {remat: (kept_bytes(remat, 12) - kept_bytes(remat, 4)) / 8
          for remat in ('none', 'projections', 'input')}
  config = models.SHORT
  layer = sum(x.size for x in jax.tree.leaves(
      make_params(config)['encoder'])) // config.num_layers * 4
  tokens, width = 8 * (5 + 20), config.width
  # Beside the parameters: bfloat16 states that enter the layer; and four
  # attention maps, what is mixed, and the two maps of the feed-forward part.
  states = 2 * tokens * width
  products = 2 * tokens * (6 * width + config.mlp_width)
  # Random keys are a few bytes more, biases that no gradient reads less.
  assert abs(kept['input'] - layer - states) < 600
  assert abs(kept['projections'] - layer - states - products) < 600
  assert kept['none'] - layer > 3 * (states + products)


def test_former_names_of_remat():
  assert model_config.Options(remat='lean') == model_config.Options(
      remat='projections')
  assert model_config.Options(remat='full').remat == 'input'
  with pytest.raises(ValueError, match="remat is 'some'; allowed: none, proj"):
    model_config.Options(remat='some')


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize('rows', [
    100, vocabulary.BLOCK_ROWS, 2 * vocabulary.BLOCK_ROWS + 30])
def test_token_nats(rows):
  vocab_size = rows - 9  # The rest of the table is padding.
  hidden, table, bias = normal(0, 2, 3, 8), normal(1, rows, 8), normal(2, rows)
  target = jax.random.randint(jax.random.key(3), (2, 3), 0, vocab_size)

  def plain(hidden, table, bias):
    logits = (hidden @ table.T + bias)[..., :vocab_size]
    nats = -jnp.take_along_axis(
        jax.nn.log_softmax(logits), target[..., None], axis=-1)[..., 0]
    return nats, logits.argmax(-1)

  def blocked(hidden, table, bias):
    return vocabulary.nats(
        hidden, table[None], bias, target, vocab_size=vocab_size)

  def measured(function):
    def total(*args):
      nats, likeliest = function(*args)
      return (nats * normal(4, 2, 3)).sum(), (nats, likeliest)
    (_, found), gradients = jax.jit(jax.value_and_grad(
        total, (0, 1, 2), has_aux=True))(hidden, table, bias)
    return [*found, *gradients]

  close(measured(blocked), measured(plain), 1e-5)


def test_a_sample_of_the_vocabulary_that_has_every_word_is_the_vocabulary():
  size = 40
  args = normal(0, 2, 3, 8), normal(1, 1, size, 8), normal(2, size)
  target = jax.random.randint(jax.random.key(3), (2, 3), 0, size)
  sample = vocabulary.draw(KEY, target, 5_000, vocab_size=size)
  assert (sample.token_W[:size] == jnp.arange(size)).all()

  def total(score, args):
    nats, likeliest = score(*args, target, vocab_size=size)
    return (nats * normal(4, 2, 3)).sum(), likeliest

  found, wanted = (
      jax.value_and_grad(functools.partial(total, score), has_aux=True)(args)
      for score in (functools.partial(vocabulary.sampled_nats, sample=sample),
                    vocabulary.nats))
  close(found, wanted, 1e-5)


def test_a_sample_of_the_vocabulary_stands_for_all_of_it_on_average():
  size = 3_000
  args = normal(0, 2, 3, 8), normal(1, 1, size, 8) / 4, normal(2, size)
  target = jax.random.randint(jax.random.key(3), (2, 3), 0, size)

  def odds(key):
    # Linear in the sum over words, which is what the sample estimates.
    sample = vocabulary.draw(key, target, 200, vocab_size=size)
    return jnp.exp(vocabulary.sampled_nats(
        *args, target, sample, vocab_size=size)[0])

  found = jax.lax.map(odds, jax.random.split(KEY, 1_000), batch_size=100)
  wanted = jnp.exp(vocabulary.nats(*args, target, vocab_size=size)[0])
  np.testing.assert_allclose(found.mean(0) / wanted, 1, atol=0.04)
  # Low ids are in nearly every sample, high ones seldom.
  drawn = jax.vmap(lambda key: vocabulary.draw(
      key, target, 200, vocab_size=size).token_W)(jax.random.split(KEY, 100))
  assert (drawn == 0).sum() == 100 > 30 > (drawn == size - 1).sum()
