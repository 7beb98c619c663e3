"""Damaged and hostile weight files: told in one line, nothing left behind."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from input_pipeline import errors
from m3p_jax import output
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from tests import torch_files
from tests import weight_files


class _Evil:

  def __reduce__(self):
    import os
    return os.system, ('touch hacked',)


@pytest.mark.parametrize(('content', 'message'), [
    (lambda data: data[:len(data) // 2], 'a.pth'),
    (lambda data: b'PK\x03\x05' + data[4:], 'a.pth'),
    (lambda data: pickle.dumps(_Evil(), protocol=2), 'system'),
    (lambda data: b'', 'the file is empty'), (None, 'no such file')],
    ids=['cut', 'flipped', 'evil', 'empty', 'absent'])
def test_bad_file_leaves_nothing_behind(
    tmp_path, monkeypatch, content, message):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'a.pth'
  if content:
    path.write_bytes(content(weight_files.M3P.read_bytes()))
  before = sorted(tmp_path.iterdir())
  with pytest.raises(errors.UserError, match=message), output.draft(
      tmp_path / 'out', overwrite=False):
    importing.read('m3p', path)
  with pytest.raises(errors.UserError, match='is a folder'):
    importing.read('m3p', tmp_path)
  assert sorted(tmp_path.iterdir()) == before


def _read(kind, path):
  """Returns {path: array} of an import, everything read."""
  return layout.flatten(importing.read(kind, path).params)


# A zip has checksums; in the others only the structure can be verified.
@pytest.mark.parametrize(('kind', 'source', 'has_checksum'), [
    ('m3p', 'zip', True), ('m3p', 'legacy', False),
    ('safetensors', 'safetensors', False)])
def test_a_flipped_byte_is_told_or_changes_numbers_alone(
    tmp_path, kind, source, has_checksum):
  path = _write_small(tmp_path, source)
  data = path.read_bytes()
  whole = _read(kind, path)
  rng = np.random.default_rng(5)
  # Half of them where the structure is: a header, pickles, a directory.
  places = [*rng.integers(0, len(data), 12), *rng.integers(0, 4000, 12),
            *rng.integers(len(data) - 4000, len(data), 8)]
  told = 0
  for place in map(int, places):
    damaged = bytearray(data)
    damaged[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(damaged)
    try:
      found = _read(kind, path)
    except errors.UserError as error:
      assert str(tmp_path) in str(error)
      told += 1
      continue
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in whole.items()}
    if has_checksum:
      for key, value in whole.items():
        np.testing.assert_array_equal(found[key], value, f'{place}: {key}')
  assert told > 8


def _write_small(folder, source):
  """Returns the path of a small file of a container."""
  config = dataclasses.replace(weight_files.OTHER, num_languages=1)
  weights = weight_files.random_m3p(config, refiner_layers=1)
  path = folder / f'a.{"safetensors" if source == "safetensors" else "pth"}'
  if source == 'safetensors':
    shapes = layout.shapes_of(config)
    safetensors_numpy.save_file({
        key: np.ones(shape, np.float32) for key, shape in shapes.items()}, path)
    (folder / 'config.json').write_text(
        json.dumps(dataclasses.asdict(config)))
    return path
  weight_files.write_geometry(folder, 3)
  return torch_files.write_flat(path, weights, zipped=source == 'zip')
