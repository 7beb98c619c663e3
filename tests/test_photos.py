"""One's own pictures: what is read, what is written, what is refused.

tests/test_notebooks.py runs the whole recipe.
"""

import json
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest

from input_pipeline import errors
from m3p_jax.recipes import photos

NAMES = ['a.png', 'b.JPG', 'trips/beach_2024-05.jpeg']

@pytest.fixture
def folder(tmp_path):
  path = tmp_path / 'my pictures'
  (path / 'trips').mkdir(parents=True)
  for name in NAMES:
    Image.new('RGB', (9, 9)).save(path / name, format='PNG')
  (path / 'notes.txt').write_text('no picture')
  return path


def test_names_stand_in_for_captions_and_the_folder_is_left_alone(
    folder, tmp_path):
  before = sorted(path.name for path in folder.rglob('*'))
  raw = tmp_path / 'raw'
  photos._write_captions(raw, folder, NAMES)
  rows = [json.loads(line)
          for line in (raw / 'captions.jsonl').read_text().splitlines()]
  assert [row['captions']['en'] for row in rows] == [
      ['a'], ['b'], ['beach 2024 05']]
  for row in rows:
    assert Image.open(raw / row['image']).size == (9, 9)
  assert sorted(path.name for path in folder.rglob('*')) == before


def _camera(folder, first_seed):
  folder.mkdir()
  for number in range(3):
    rng = np.random.default_rng(first_seed + number)
    Image.fromarray(np.kron(
        rng.integers(0, 256, (4, 4, 3), np.uint8),
        np.ones((16, 16, 1), np.uint8))).save(
            folder / f'IMG_{number}.png', compress_level=0)


def test_other_pictures_of_the_same_names_are_indexed(
    small_run, tmp_path, capsys):
  for name, seed in (('100CANON', 0), ('101CANON', 100)):
    _camera(tmp_path / name, seed)

  def index(name):
    searcher = photos.Photos(
        tmp_path / 'run', tmp_path / 'data', tmp_path / name,
        weights=small_run).run()
    assert [searcher.index.file(i) for i in range(3)] == [
        str(tmp_path / name / pathlib.PurePath(image_id).name)
        for image_id in searcher.index.image_ids]
    return searcher.index.vectors_IE

  first = index('100CANON')
  capsys.readouterr()
  np.testing.assert_array_equal(index('100CANON'), first)
  assert 'read 3 pictures' in capsys.readouterr().err.split(
      ': done before')[0]
  second = index('101CANON')
  assert (first != second).any(axis=1).all()
  # One is replaced by an older one of the same size.
  shutil.copy2(tmp_path / '100CANON' / 'IMG_1.png',
               tmp_path / '101CANON' / 'IMG_1.png')
  third = index('101CANON')
  assert (second != third).any(axis=1).tolist().count(True) == 1


def test_weights_that_are_no_run_are_refused_before_all_work(
    folder, tmp_path):
  recipe = photos.Photos(tmp_path / 'run', tmp_path / 'data', folder,
                         weights=tmp_path / 'nothing')
  with pytest.raises(errors.UserError, match='nothing: no checkpoint here'):
    recipe.run()
  assert not (tmp_path / 'run').exists()
