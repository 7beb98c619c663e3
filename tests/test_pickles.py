"""Properties of the reader: exact numbers, and nothing in a file ever runs."""

import os
import pathlib
import pickle
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from input_pipeline import errors
from input_pipeline.weights import pickles
from tests import torch_files

_GOLDEN = pathlib.Path(__file__).parent / 'golden'
_XLMR = _GOLDEN / 'xlmr_small'
_LEGACY = _GOLDEN / 'm3p_small_legacy' / 'checkpoint.pth'


def test_zip_agrees_with_safetensors():
  # The same weights, written by PyTorch in both formats.
  read = pickles.load_torch(_XLMR / 'pytorch_model.bin')
  expected = safetensors_numpy.load_file(_XLMR / 'model.safetensors')
  assert expected.keys() <= read.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_legacy_container():
  model = pickles.load_torch(_LEGACY)['model']
  assert len(model) == 134
  assert all(np.isfinite(array).all() for array in model.values())
  assert model['module.embeddings.weight'].shape == (300, 32)
  assert not model['module.embeddings.weight'].flags.writeable


def test_agrees_with_torch():
  torch = pytest.importorskip('torch', reason='compares with torch.load')
  expected = torch.load(_LEGACY, weights_only=True, map_location='cpu')['model']
  read = pickles.load_torch(_LEGACY)['model']
  assert list(read) == list(expected)
  for name, tensor in expected.items():
    np.testing.assert_array_equal(read[name], tensor.numpy(), err_msg=name)


@pytest.mark.parametrize('zipped', [True, False])
def test_reads_what_torch_writes(tmp_path, zipped):
  torch = pytest.importorskip('torch', reason='writes with torch.save')
  base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
  value = {
      'base': base,
      'transposed': base.T[1:4],
      'strided': base[::2, 1::3],
      'expanded': torch.ones(3, 1).expand(3, 5),
      'half': base.half(),
      'bfloat16': base.bfloat16(),
      'bool': base > 3,
      'long': base.long() * 2**40,
      'scalar': torch.tensor(2.5, dtype=torch.float64),
      'empty': torch.zeros(0, 3),
      'parameter': torch.nn.Parameter(base + 1),
      'params': {'lr': 0.1, 'names': ['a', ('b', None)], 'size': base.shape},
      'device': torch.device('cpu'),
      'metric': np.float64(0.5),
  }
  path = tmp_path / 'a.pth'
  torch.save(value, path, _use_new_zipfile_serialization=zipped)
  read = pickles.load_torch(path)
  for name, tensor in value.items():
    if isinstance(tensor, torch.Tensor):
      expected = tensor.detach()
      if name == 'bfloat16':
        assert read[name].dtype == ml_dtypes.bfloat16
        expected = expected.float()
      np.testing.assert_array_equal(
          read[name].astype(expected.numpy().dtype), expected.numpy(), name)
  assert read['params'] == value['params']
  assert read['device'] == 'cpu'
  assert read['metric'] == 0.5
  assert np.shares_memory(read['base'], read['transposed'])


@pytest.mark.parametrize('legacy', [True, False])
def test_offsets_strides_and_shared_storages(tmp_path, legacy):
  numbers_N = np.arange(12, dtype=np.float32)
  storage = torch_files.Storage('FloatStorage', '7', 12)
  value = {'rows': torch_files.tensor(storage, 2, (2, 3), (5, 1)),
           'columns': torch_files.tensor(storage, 0, (3, 2), (1, 6))}
  read = pickles.load_torch(torch_files.write(
      tmp_path / 'a.pth', value, {'7': numbers_N}, legacy=legacy))
  np.testing.assert_array_equal(read['rows'], [[2, 3, 4], [7, 8, 9]])
  np.testing.assert_array_equal(read['columns'], [[0, 6], [1, 7], [2, 8]])
  assert np.shares_memory(read['rows'], read['columns'])


def test_legacy_part_of_a_storage(tmp_path):
  part = torch_files.Storage('LongStorage', '7', 6, view=(('p', 2, 3),))
  value = torch_files.tensor(part, 0, (3,), (1,))
  numbers = {'7': np.arange(6)}
  path = torch_files.write_legacy(tmp_path / 'a.pth', value, numbers)
  np.testing.assert_array_equal(pickles.load_torch(path), [2, 3, 4])


def test_big_endian_zip(tmp_path):
  numbers_N = np.arange(4, dtype='>f8')
  storage = torch_files.Storage('DoubleStorage', '0', 4)
  value = torch_files.tensor(storage, 0, (4,), (1,))
  path = torch_files.write_zip(
      tmp_path / 'a.pth', value, {'0': numbers_N.tobytes()}, order=b'big')
  np.testing.assert_array_equal(pickles.load_torch(path), [0, 1, 2, 3])


def test_namespace_and_metadata_become_plain(tmp_path):
  class Namespace:

    def __reduce_ex__(self, protocol):
      del protocol
      return torch_files.Global('argparse', 'Namespace'), (), {'heads': 12}

  path = torch_files.write_zip(tmp_path / 'a.pth', {'params': Namespace()}, {})
  assert pickles.load_torch(path) == {'params': {'heads': 12}}


@pytest.mark.parametrize('module, name', [
    ('os', 'system'), ('posix', 'system'), ('builtins', 'eval'),
    ('__builtin__', 'eval'), ('builtins', 'getattr'), ('torch', 'load'),
    ('torch.nn.modules.linear', 'Linear')])
@pytest.mark.parametrize('legacy', [True, False])
def test_refuses_every_other_name(tmp_path, module, name, legacy):
  target = tmp_path / 'executed'
  argument = f'touch {target}'
  if name == 'eval':
    argument = f'open({str(target)!r}, "w")'
  value = {'x': torch_files.Call(torch_files.Global(module, name), (argument,))}
  path = torch_files.write(tmp_path / 'a.pth', value, {}, legacy=legacy)
  with pytest.raises(errors.UserError, match=f'{module}.{name}'):
    pickles.load_torch(path)
  assert not target.exists()


def test_refuses_what_real_pickles_run(tmp_path):
  class Exploit:

    def __reduce__(self):
      return os.mkdir, (str(tmp_path / 'executed'),)

  path = tmp_path / 'a.pth'
  for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    path.write_bytes(pickle.dumps(Exploit(), protocol))
    with pytest.raises(errors.UserError, match='mkdir'):
      pickles.load_torch(path)
  assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('size, offset, shape, strides, message', [
    (4, 1, (4,), (1,), 'ends at number 4'),
    (4, 0, (2, 3), (3, 1), 'ends at number 5'),
    (4, -1, (2,), (1,), '≥ 0'), (4, 3, (2,), (-1,), '≥ 0'),
    (4, 0, (2, 2), (1,), 'as many strides'),
    (4, 0, (2**40,), (0,), 'repeats 4 numbers'),
    (2**50, 0, (4,), (1,), 'not of'), (-4, 0, (4,), (1,), 'not of -16 bytes'),
    (5, 0, (4,), (1,), 'not of 20 bytes')])
def test_refuses_tensors_outside_their_storage(
    tmp_path, size, offset, shape, strides, message):
  value = torch_files.tensor(torch_files.floats(size), offset, shape, strides)
  path = torch_files.write_zip(tmp_path / 'a.pth', value, {'0': bytes(16)})
  with pytest.raises(errors.UserError, match=message):
    pickles.load_torch(path)
  if size < 0 or size > 4:
    torch_files.write_legacy(path, value, {'0': np.zeros(4, np.float32)})
    with pytest.raises(errors.UserError):
      pickles.load_torch(path)


def test_refuses_damage_by_name(tmp_path):
  path = tmp_path / 'a.pth'
  data = (_XLMR / 'pytorch_model.bin').read_bytes()
  legacy = _LEGACY.read_bytes()
  broken = bytearray(data)
  broken[len(data) // 2] ^= 255
  memo = b'\x80\x02]r\xff\xff\xff\x7f.'  # LONG_BINPUT 2³¹ − 1
  for damaged in (
      b'', b'hello', data[:len(data) // 2], bytes(broken), legacy[:10],
      legacy[:len(legacy) // 2], legacy[:-1], pickle.dumps({'a': 1}), memo):
    path.write_bytes(damaged)
    with pytest.raises(errors.UserError, match=r'a\.pth'):
      pickles.load_torch(path)
  torch_files.write_zip(path, {}, {}, compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(errors.UserError, match='compressed'):
    pickles.load_torch(path)
  with pytest.raises(FileNotFoundError):
    pickles.load_torch(tmp_path / 'none.pth')


@pytest.mark.parametrize('legacy', [True, False])
def test_a_file_stays_on_the_disk_until_its_numbers_are_used(tmp_path, legacy):
  # Files of region features are larger than the memory.
  count = 2_000_000
  path = torch_files.write_flat(
      tmp_path / 'a.pth', {'a': np.zeros(count, np.float32)},
      zipped=not legacy)
  tracemalloc.start()
  pickles.load_torch(path)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 0.5 * path.stat().st_size


@pytest.mark.parametrize('state', [
    {'_shape': (2**40,)}, (None, {'_shape': (2**40,)})])
def test_a_tensor_that_was_checked_stays_as_it_is(tmp_path, state):

  class Changed(torch_files.Call):

    def __reduce_ex__(self, protocol):
      return self.function, self.arguments, state

  call = torch_files.tensor(torch_files.floats(4), 0, (4,), (1,))
  path = torch_files.write_zip(
      tmp_path / 'a.pth', [Changed(call.function, call.arguments)],
      {'0': bytes(16)})
  with pytest.raises(errors.UserError, match='attributes are set'):
    pickles.load_torch(path)


def test_a_part_that_a_pickle_forges_gives_no_other_memory(tmp_path):
  storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ"
  forged = b'(' + storage + b'K\x00J\xff\xff\xff\x7ft'
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
    archive.writestr(
        'a/data.pkl', b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(' + forged
        + b'K\x00(K\x05t(K\x01ttR.')
    archive.writestr('a/data/0', bytes(16))
  with pytest.raises(errors.UserError, match='a tensor over a tuple'):
    pickles.load_torch(tmp_path / 'a.pth')
