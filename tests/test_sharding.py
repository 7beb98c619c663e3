"""Rules of splitting, and that a mesh changes no loss."""

import json
import pathlib
import subprocess

from flax import linen as nn
from flax import traverse_util
import jax
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from input_pipeline import errors
from m3p_jax import sharding
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from tests import compiler


class FakeMesh:
  """Sizes of a mesh that this machine does not have."""
  shape = {'data': 2, 'fsdp': 2, 'model': 2}


def test_mesh_takes_all_devices():
  mesh = sharding.make_mesh()
  assert mesh.axis_names == ('data', 'fsdp', 'model')
  assert mesh.size == len(jax.devices())


@pytest.mark.parametrize('count, slices, sizes, shape', [
    (8, 1, (-1, -1, 1), (1, 8, 1)), (256, 1, (-1, -1, 1), (16, 16, 1)),
    (24, 1, (-1, -1, 1), (2, 12, 1)), (8, 1, (-1, -1, 2), (1, 4, 2)),
    (8, 1, (-1, 2, 1), (4, 2, 1)), (8, 1, (8, -1, 1), (8, 1, 1)),
    (8, 1, (2, 2, 2), (2, 2, 2)), (16, 2, (-1, -1, 1), (2, 8, 1))])
def test_devices_are_laid_out_in_groups(count, slices, sizes, shape):
  assert sharding._mesh_shape(*sizes, count, slices) == shape


def test_a_group_lies_within_a_slice():
  with pytest.raises(errors.UserError, match='data = 1 .*the 2 slices'):
    sharding._mesh_shape(1, 16, 1, 16, 2)


@pytest.mark.parametrize('sizes', [
    (3, -1, 1), (-1, -1, 5), (0, -1, 1), (-1, -1, -1), (-1, -2, 1)])
def test_mesh_that_does_not_fit_is_refused_with_numbers(sizes):
  with pytest.raises(errors.UserError, match='1 device'):
    sharding.make_mesh(*sizes, jax.devices()[:1])


def test_specs():
  assert sharding.spec(FakeMesh, ('embed', 'mlp'), (8, 4), 'x') == P(
      'fsdp', 'model')
  assert sharding.spec(FakeMesh, ('layers', None), (3, 3), 'x') == P(None, None)
  assert sharding.spec(FakeMesh, ('batch',), (8,), 'x') == P(('data', 'fsdp'))


def test_unknown_axis_and_indivisible_size_are_refused():
  with pytest.raises(KeyError, match="'embd' has no rule"):
    sharding.spec(FakeMesh, ('embd',), (8,), 'x')
  with pytest.raises(errors.UserError,
                     match=r'x: size 250003.*2 devices of mesh.fsdp'):
    sharding.spec(FakeMesh, ('embed',), (250_003,), 'x')
  with pytest.raises(errors.UserError,
                     match=r'tasks\.xmlm\.batch_size: size 30.*4 devices'):
    sharding.check_batch_size(FakeMesh, 'xmlm', 30)
  with pytest.raises(errors.UserError, match='30 does not divide by accum'):
    sharding.check_batch_size(FakeMesh, 'xmlm', 30, 4)
  with pytest.raises(errors.UserError, match=r'steps=3: size 10 .*4 devices'):
    sharding.check_batch_size(FakeMesh, 'xmlm', 30, 3)


@pytest.mark.parametrize('flags, message', [
    (('', None, 1), 'need --coordinator'),
    (('host:1', 2, None), 'needs --num_processes and --process_id'),
    (('host:1', 2, 2), '--process_id is 2; allowed: 0 to 1')])
def test_flags_of_several_processes_belong_together(flags, message):
  with pytest.raises(errors.UserError, match=message):
    sharding.connect(*flags)


def test_every_parameter_of_the_base_size_has_a_rule():
  config = model_config.ModelConfig(refiner_layers=2)
  boxed = m3p.abstract_params(config)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  shardings = sharding.of_params(mesh, boxed)
  assert (jax.tree.structure(shardings)
          == jax.tree.structure(nn.unbox(boxed)))
  assert shardings['tokens']['embedding'].spec == P(
      ('model', 'fsdp'), None)
  # And on a mesh of 8: nothing is left whole but small vectors.
  for leaf in jax.tree.leaves(
      boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)):
    sharding.spec(FakeMesh, leaf.names, leaf.value.shape, 'x')


@pytest.mark.parametrize('size, changes', [
    ('base', {}),
    ('large', dict(
        width=1024, num_heads=16, mlp_width=4096, num_layers=24,
        embedding_dim=512, refiner_layers=2, match_head='first+product',
        caption_match=True, decoder=True))])
def test_parameters_are_those_that_checkpoints_have(size, changes):
  golden = json.loads((
      pathlib.Path(__file__).parent / 'golden' / 'parameter_shapes.json'
  ).read_text())
  boxed = traverse_util.flatten_dict(
      m3p.abstract_params(model_config.ModelConfig(**changes)), sep='/',
      is_leaf=lambda _, leaf: isinstance(leaf, nn.Partitioned))
  found = {path: ', '.join(
      f'{axis} {count}' for axis, count in zip(
          leaf.names, leaf.value.shape, strict=True))
           for path, leaf in boxed.items()}
  # Another name or shape needs a conversion of the checkpoints there are.
  assert found == golden[size]


def losses_on(python, devices: int, *arguments) -> subprocess.Popen:
  return subprocess.Popen(
      [python, '-m', 'tests.mesh_losses', *map(str, arguments)],
      env=compiler.environment(devices), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, text=True)


def results(process: subprocess.Popen) -> list[dict]:
  out, err = process.communicate(timeout=900)
  assert process.returncode == 0, err
  return [json.loads(line) for line in out.splitlines() if line[:1] == '{']


def assert_equal_losses(one, other):
  for step, (left, right) in enumerate(
      zip(one['losses'], other['losses'], strict=True)):
    for name, value in left.items():
      # Dropout and masks are equal; sums over devices differ in rounding.
      np.testing.assert_allclose(
          right[name], value, rtol=1e-4 if step else 1e-5,
          err_msg=f'{name} at step {step + 1}')


def test_meshes_and_hosts_give_the_losses_of_one_device(python):
  arrays, one, eight, mixed = results(
      losses_on(python, 8, 1, 1, 1, 1, 8, 1, 2, 2, 2))
  # Nothing in a step is as large as a device's logits of all words.
  assert arrays['largest'] < arrays['logits'] / 2
  # A sample of the vocabulary is the same one however the table is split.
  np.testing.assert_allclose(
      arrays['sampled'][:2], arrays['sampled'][2:], rtol=1e-5)
  for other in (eight, mixed):
    assert_equal_losses(one, other)
    # A collective in a branch has no order beside those outside: devices of a
    # CPU could wait for each other in two of them, for ever.
    assert not other['conditionals']
  layers, embed, mlp = mixed['shape']
  assert mixed['shard'] == [layers, embed // 2, mlp // 2]
  assert one['shard'] == one['shape']
  # FSDP: each device holds its share of parameters and moments.
  assert one['held'] == one['whole']
  assert eight['held'] <= 1.1 / 8 * eight['whole']

  # In a loop of layers only vectors' gradients are sent, no matrix's.
  assert one['sent_in_loops'] == 0
  assert 0 < eight['sent_in_loops'] < embed * mlp

  # And two hosts of two devices each.
  address = compiler.free_address()
  pair = [losses_on(python, 2, f'--coordinator={address}', index)
          for index in range(2)]
  (first,), (second,) = map(results, pair)
  assert first['losses'] == second['losses']
  assert_equal_losses(one, first)
