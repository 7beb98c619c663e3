"""Importers against files that independent code wrote, field by field."""

import json
import pathlib
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline import regions
from input_pipeline.regions import isolated
from input_pipeline.regions import source
from tests import region_writers as writers
from tests import torch_files

# Two images of different shape and number of regions.
IMAGES = [writers.image('COCO_val2014_000000000042', seed=1),
          writers.image('7', seed=2, count=5, height=70, width=30)]
WITHOUT_CLASSES = {'butd_tsv', 'milvlg_npz', 'oscar_pt'}
WITHOUT_SIZE = {'oscar_pt', 'uniter_lmdb'}


@pytest.mark.parametrize('variant', writers.VARIANTS)
def test_every_field(tmp_path, variant):
  name = writers.format_of(variant)
  read = writers.read(name, writers.VARIANTS[variant](tmp_path, IMAGES))
  assert set(read) == {image.name for image in IMAGES}
  half = name == 'uniter_lmdb'  # As its writers store everything.
  for image in IMAGES:
    found = read[image.name]
    height, width = ((1, 1) if name in WITHOUT_SIZE
                     else (image.height, image.width))
    assert (found.height, found.width) == (height, width)
    np.testing.assert_allclose(
        found.boxes_R4,
        image.boxes / np.float32([image.width, image.height] * 2)
        * np.float32([width, height] * 2), rtol=1e-2 if half else 1e-6,
        atol=1e-3 if half else 1e-6)
    np.testing.assert_array_equal(
        found.features_RF,
        image.features.astype(np.float16) if half else image.features)
    classes = image.objects + (variant == 'm3p_h5_scores' and -1) + 1
    np.testing.assert_array_equal(
        found.class_ids_R, 0 if name in WITHOUT_CLASSES else classes)
    assert found.class_ids_R.dtype == np.int32


def test_every_format_has_an_independent_writer():
  assert {writers.format_of(v) for v in writers.VARIANTS} == set(source.names())


@pytest.mark.parametrize('name', source.writers())
def test_written_files_read_back_equal(tmp_path, name):
  written = [regions.RegionSet(
      i.features.astype(np.float16), i.boxes,
      np.where(i.objects % 2, i.objects + 1, 0).astype(np.int32), i.height,
      i.width, i.name) for i in IMAGES]
  with source.writers()[name](tmp_path / 'a') as writer:
    for image in written:
      writer.add(image)
  read = writers.read(name, tmp_path / 'a')
  for image in written:
    if name in WITHOUT_CLASSES:
      image = image._replace(class_ids_R=image.class_ids_R * 0)
    for field, expected in image._asdict().items():
      np.testing.assert_array_equal(
          getattr(read[image.image_id], field), expected, field)


def test_classes_that_count_the_background(tmp_path):
  # mmf with --background: objects count from 1, scores do not have it.
  path = writers.mmf_npy(tmp_path, IMAGES)
  for image in IMAGES:
    info = path / f'{image.name}_info.npy'
    values = np.load(info, allow_pickle=True).item()
    np.save(info, values | {'objects': values['objects'] + 1})
  read = writers.read('mmf_npy', path)
  for image in IMAGES:
    np.testing.assert_array_equal(
        read[image.name].class_ids_R, image.objects + 1)


def test_openvqa_writes_features_transposed(tmp_path):
  image = IMAGES[0]
  np.savez(tmp_path / '42.npz', x=image.features.T, bbox=image.boxes,
           num_bbox=len(image.boxes), image_h=image.height, image_w=image.width)
  np.testing.assert_array_equal(
      writers.read('milvlg_npz', tmp_path)['42'].features_RF, image.features)


def test_a_folder_of_shards_is_one_source(tmp_path):
  for number, image in enumerate(IMAGES):
    (tmp_path / str(number)).mkdir()
    writers.m3p_h5(tmp_path / str(number), [image]).rename(
        tmp_path / f'train_{number}.h5')
  with source.open_reader('m3p_h5', tmp_path / 'train_0.h5') as reader:
    assert [entry.image_id for entry in reader.entries()] == [IMAGES[0].name]
  found = source.RegionSource('m3p_h5', tmp_path)
  try:
    places = found.index.match(image.name for image in IMAGES)
    for image in IMAGES:
      np.testing.assert_array_equal(
          found.load(places[image.name]).features_RF, image.features)
    manifest = found.manifest()
    assert manifest['found']['wh'] == 'height, width'
    assert [len(file['sha256']) for file in manifest['files']] == [64, 64]
  finally:
    found.close()


def test_contradicting_sizes_are_refused(tmp_path):
  path = writers.m3p_h5(tmp_path, IMAGES)
  with h5py.File(path, 'r+') as file:
    file['wh'][1] = file['wh'][1][::-1]
  with pytest.raises(errors.UserError, match='`wh` is height, width in 1'):
    writers.read('m3p_h5', path)


def test_tables_name_each_other(tmp_path):
  path = writers.lxmert_tsv(tmp_path, IMAGES)
  with pytest.raises(errors.UserError, match='10 columns.*=lxmert_tsv'):
    writers.read('butd_tsv', path)


@pytest.mark.parametrize(('column', 'value', 'message'), [
    (4, b'!!!!', 'row 2: boxes is no base64'),
    (4, b'AAAA', 'row 2: boxes has a wrong length: 3 bytes'),
    (5, b'AAAAAA==', 'row 2: features has a wrong length'),
    (3, b'4', 'row 2: boxes has a wrong shape'),
    (3, b'-1', 'row 2: num_boxes is no whole number'),
    (1, b'', 'row 2: image_w is no whole number'),
    (1, b'12', 'row 2: box outside the image'),
    (0, b'', 'row 2: image id unfit')])
def test_a_wrong_field_is_named_with_its_row(tmp_path, column, value, message):
  path = writers.butd_tsv(tmp_path, IMAGES)
  first, second = path.read_bytes().splitlines()
  cells = second.split(b'\t')
  cells[column] = value
  path.write_bytes(first + b'\n' + b'\t'.join(cells))
  with pytest.raises(errors.UserError, match=message):
    writers.read('butd_tsv', path)


class _Evil:
  """Touches a file when it is unpickled."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self._path,)


def test_code_in_a_pickle_never_runs(tmp_path):
  touched = tmp_path / 'touched'
  evil = pickle.dumps({'features': _Evil(touched)})
  lmdb = writers.write_lmdb(tmp_path / 'a.lmdb', {b'1': evil})
  for name in ('volta_lmdb', 'mmf_lmdb'):
    with pytest.raises(
        regions.FileError, match=r"key '1'.*pathlib.*not on the"):
      writers.read(name, lmdb)
  folder = writers.mmf_npy(tmp_path, IMAGES[:1])
  np.save(folder / f'{IMAGES[0].name}_info.npy',
          np.array(_Evil(touched), dtype=object))
  with pytest.raises(regions.FileError, match=r'npy.*pathlib.*not on the list'):
    writers.read('mmf_npy', folder)
  torch_files.write_zip(tmp_path / '1.pt', {
      'x': torch_files.Call(torch_files.Global('os', 'system'), ('x',))}, {})
  with pytest.raises(errors.UserError, match=r'os\.system'):
    writers.read('oscar_pt', tmp_path / '1.pt')
  assert not touched.exists()


def test_claims_of_size_are_not_believed(tmp_path):
  header = (b'\x93NUMPY\x01\x00v\x00' + (
      b"{'descr': '<f4', 'fortran_order': False, 'shape': (2500000000, 1)}"
  ).ljust(117) + b'\n')
  with zipfile.ZipFile(tmp_path / '1.npz', 'w') as archive:
    archive.writestr('x.npy', header)
  with pytest.raises(errors.UserError, match=r'1\.npz: damaged: float32'):
    writers.read('milvlg_npz', tmp_path)
  with zipfile.ZipFile(tmp_path / '1.npz', 'w', zipfile.ZIP_DEFLATED) as bomb:
    bomb.writestr('x.npy', bytes(regions.MAX_BYTES + 1))
  with pytest.raises(errors.UserError, match=r'1\.npz: too large'):
    writers.read('milvlg_npz', tmp_path)
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    file.create_dataset('1/boxes', (10**9, 4), 'f4', compression='gzip')
  with pytest.raises(errors.UserError, match="group '1': too large"):
    writers.read('volta_h5', tmp_path / 'a.h5')


def test_h5_leads_to_no_other_file(tmp_path):
  secret = writers.volta_h5(tmp_path, IMAGES[:1])
  for link in (h5py.ExternalLink(secret.name, IMAGES[0].name),
               h5py.SoftLink('/')):
    with h5py.File(tmp_path / 'b.h5', 'w') as file:
      file['1'] = link
    with pytest.raises(errors.UserError, match='links are not followed'):
      writers.read('volta_h5', tmp_path / 'b.h5')
  (tmp_path / 'raw').write_bytes(bytes(64))
  with h5py.File(tmp_path / 'b.h5', 'w') as file:
    file.create_dataset('1/boxes', (4, 4), 'f4',
                        external=[(str(tmp_path / 'raw'), 0, 64)])
  with pytest.raises(errors.UserError, match='lie in other files'):
    writers.read('volta_h5', tmp_path / 'b.h5')


def test_a_crash_is_an_error_of_the_file(tmp_path):
  path = writers.volta_lmdb(tmp_path, IMAGES)
  data = (path / 'data.mdb').read_bytes()
  (path / 'data.mdb').write_bytes(data[:len(data) // 2])
  with pytest.raises(regions.FileError, match=r'a\.lmdb is damaged'):
    writers.read('volta_lmdb', path)
  # The process that starts others is alive.
  path = writers.volta_h5(tmp_path, IMAGES)
  assert len(writers.read('volta_h5', path)) == len(IMAGES)


def test_reading_that_does_not_end_is_ended(tmp_path, monkeypatch):
  monkeypatch.setattr(isolated, 'PATIENCE_SECONDS', 1)
  path = writers.m3p_h5(tmp_path, IMAGES)
  with h5py.File(path, 'r+') as file:
    shape = (2**40, 2)
    for name in ('wh', 'bbox', 'image_id', 'num_boxes', 'features', 'objects'):
      old = file[name]
      dtype, rest = old.dtype, old.shape[1:]
      del file[name]
      file.create_dataset(name, (shape[0], *rest), dtype, chunks=True)
  with pytest.raises(regions.FileError, match='or took over 1 s'):
    writers.read('m3p_h5', path)


def test_a_missing_library_is_named_with_the_command():
  with pytest.raises(errors.UserError, match='requirements-formats.txt'):
    regions.load_library('no_such_library')


def test_manifests_are_json(tmp_path):
  found = source.RegionSource('butd_tsv', writers.butd_tsv(tmp_path, IMAGES))
  assert json.loads(json.dumps(found.manifest()))['images'] == 2
  assert found.extractor_manifest()['feature_dim'] == 5
  found.close()
