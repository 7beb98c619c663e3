"""Tasks one after the other: the same gradients, and less memory."""

import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import metrics
from m3p_jax import train_step
from m3p_jax.training import in_turn

DEPTH, WIDTH, ROWS = 8, 32, 2048
TASKS = [train_step.Task(name, loss=None) for name in 'abcd']
PARAMS = {'w': jax.random.normal(jax.random.key(0), (WIDTH, WIDTH)) / 5,
          'scale': jnp.float32(2)}
BATCHES = {task.name: {
    'x': jax.random.normal(jax.random.key(i), (ROWS, WIDTH)),
    'ids': jnp.arange(ROWS), 'mask': jnp.arange(ROWS) % 3 > 0}
           for i, task in enumerate(TASKS)}


def one_loss(params, rows, number, task):
  """A deep function of the rows, of which some are drawn."""
  x = rows['x'] * jax.random.bernoulli(
      jax.random.fold_in(jax.random.key(9), number), 0.8, (ROWS, 1))
  for _ in range(DEPTH):
    x = jnp.tanh(x @ params['w'])
  value = params['scale'] * jnp.mean(
      x[rows['ids']] * rows['mask'][:, None])
  return value, {task.name: metrics.Mean(value, jnp.ones(()))}


@jax.jit
def together(params, batches):
  def total(params):
    found = [one_loss(params, batches[task.name], index, task)
             for index, task in enumerate(TASKS)]
    return sum(value for value, _ in found), {
        name: mean for _, means in found for name, mean in means.items()}

  return jax.value_and_grad(total, has_aux=True)(params)


@jax.jit
def one_by_one(params, batches, is_on):
  return in_turn.value_and_grad(
      one_loss, params, batches, dict(enumerate(TASKS)), is_on=is_on)


def test_gradients_and_metrics_are_those_of_the_sum():
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
      one_by_one(PARAMS, BATCHES, jnp.bool_(True)), together(PARAMS, BATCHES))


def test_one_task_keeps_its_activations_at_a_time():
  def memory(function, *args):
    return function.lower(*args).compile().memory_analysis().temp_size_in_bytes

  assert memory(one_by_one, PARAMS, BATCHES, jnp.bool_(True)) < (
      0.5 * memory(together, PARAMS, BATCHES))
