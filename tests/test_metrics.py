"""Means that merge, and the metrics files."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import metrics


def test_means_divide_after_merging():
  merged = metrics.Mean(jnp.float32(2), jnp.float32(1)) + metrics.Mean(
      jnp.float32(1), jnp.float32(3))
  assert merged.compute() == 0.75


def test_no_weight_is_zero_with_finite_gradient():
  def mean(total, weight):
    return metrics.Mean(total, weight).compute()

  value, gradients = jax.value_and_grad(mean, (0, 1))(
      jnp.float32(0), jnp.float32(0))
  assert value == 0
  assert np.isfinite(gradients).all()


def test_lines_start_with_the_step_and_survive_a_restart(tmp_path):
  writer = metrics.Writer(tmp_path, start_step=0)
  for step in (1, 2, 3):
    writer.write(step, {'xmlm/loss': np.float32(step)})
  writer.close()
  assert list(json.loads(writer.path.read_text().split('\n')[0])) == [
      'step', 'xmlm/loss']
  with writer.path.open('a') as file:
    file.write('{"step": 4, "xm')  # Cut off by a kill.
  writer = metrics.Writer(tmp_path, start_step=2)
  writer.write(3, {'xmlm/loss': 30.0})
  writer.close()
  assert [(line['step'], line['xmlm/loss'])
          for line in metrics.read(writer.path)] == [(1, 1), (2, 2), (3, 30)]


def test_no_file_is_no_lines(tmp_path):
  assert metrics.read(tmp_path / 'metrics.jsonl') == []
