"""Adapters: what changes is a thin product, its gradient the chain rule's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from input_pipeline import errors
from m3p_jax import adapters
from m3p_jax import config as config_lib
from tests import toy

# Kernels of a stack of layers, of attention's two sides, and a plain one.
SHAPES = {'encoder': {'attention': {'query': (2, 6, 3, 4), 'out': (2, 3, 4, 6)},
                      'mlp': {'inner': (2, 6, 8)}},
          'refiner': {'attention_0': {'value': (6, 3, 4)}},
          'head': {'out': (6, 5)}}
RANKS = ((r'^encoder/mlp/', 1), (r'^(encoder|refiner|head)/', 2))
# Of each: layers, inputs, outputs.
SIZES = {'encoder/attention/query/kernel': (2, 6, 12),
         'encoder/attention/out/kernel': (2, 12, 6),
         'encoder/mlp/inner/kernel': (2, 6, 8),
         'refiner/attention_0/value/kernel': (1, 6, 12),
         'head/out/kernel': (1, 6, 5)}


def tree(seed):
  keys = iter(jax.random.split(jax.random.key(seed), 100))
  return jax.tree.map(
      lambda shape: {'kernel': jax.random.normal(next(keys), shape),
                     'bias': jax.random.normal(next(keys), shape[-1:])},
      SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def kernels(params):
  return {'/'.join(key.key for key in path): leaf for path, leaf
          in jax.tree.leaves_with_path(params) if path[-1].key == 'kernel'}


def run(tx, params, gradients):
  state = tx.init(params)
  for gradient in gradients:
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def test_a_kernel_is_what_it_was_and_a_product_of_its_rank():
  before, gradients = tree(0), [tree(seed) for seed in range(1, 6)]
  tx = adapters.adapt(optax.adam(1e-2), RANKS, seed=3)
  after, state = run(tx, before, gradients)
  for path, (layers, inputs, outputs) in SIZES.items():
    change = kernels(after)[path] - kernels(before)[path]
    change = np.asarray(change).reshape(layers, inputs, outputs)
    pair = {name: np.asarray(value).reshape(layers, *value.shape[-2:])
            for name, value in state.factors[path].items()}
    np.testing.assert_allclose(
        change, pair['down'] @ pair['up'], atol=1e-5)
    assert (np.linalg.matrix_rank(change, tol=1e-4)
            == adapters.rank(path, RANKS)).all()
  # What has no adapter is trained as ever.
  plain, _ = run(optax.adam(1e-2), before, gradients)
  np.testing.assert_array_equal(
      after['head']['out']['bias'], plain['head']['out']['bias'])
  # Of a kernel of 2 x 6 x 8 numbers the optimizer keeps 2 x (6 + 8), twice.
  moments = state.inner[0].mu['encoder']['mlp']['inner']['kernel']
  assert sum(x.size for x in jax.tree.leaves(moments)) == 28


def test_factors_learn_by_the_chain_rule():
  before = tree(0)
  tx = adapters.adapt(optax.sgd(0.1), RANKS, seed=3)
  # The first update makes `up` other than zero.
  params, state = run(tx, before, [tree(1)])
  gradient = tree(2)
  _, after = tx.update(gradient, state, params)

  def loss(factors):
    return sum((kernels(gradient)[path] * (pair['down'] @ pair['up']).reshape(
        kernels(gradient)[path].shape)).sum() for path, pair in factors.items())

  wanted = jax.tree.map(
      lambda x, slope: x - 0.1 * slope, state.factors,
      jax.grad(loss)(state.factors))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               after.factors, wanted)


def test_first_values_change_nothing_and_depend_on_the_seed():
  def first(seed):
    return adapters.adapt(optax.sgd(0.1), RANKS, seed=seed).init(
        tree(0)).factors

  assert not any(pair['up'].any() for pair in first(1).values())
  jax.tree.map(np.testing.assert_array_equal, first(1), first(1))
  path = 'head/out/kernel'
  assert (first(1)[path]['down'] != first(2)[path]['down']).any()
  assert jnp.abs(first(1)[path]['down']).max() > 0.1


@pytest.mark.parametrize('ranks, message', [
    (((r'^encoder/mpl/', 4),), "'.encoder/mpl/' matches no kernel.*mlp/inner"),
    (((r'bias$', 4),), 'matches no kernel')])
def test_what_matches_nothing_is_refused(ranks, message):
  with pytest.raises(errors.UserError, match=message):
    adapters.check(tree(0), ranks)


@pytest.mark.parametrize('ranks', [
    (('^encoder/', 0),), (('^encoder/', -4),), (('^encoder/', 'x'),),
    (('^encoder/', 2.0),), (('^encoder/', True),), (('(', 4),),
    ('^encoder/', 4), ((4, '^encoder/'),), (('^encoder/', 4, 8),), (None,)],
                         ids=repr)
def test_what_is_no_pattern_with_a_rank_is_refused(ranks):
  config = toy.config()
  config.optimizer.adapters = ranks
  with pytest.raises(errors.UserError, match='adapters has .*allowed'):
    config_lib.check(config)
