"""One's own pictures: what is read, what is written, what is refused.

tests/test_notebooks.py runs the whole recipe.
"""

import json
import os
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest

from input_pipeline import errors
from input_pipeline.vision import extractors
from m3p_jax import search
from m3p_jax.evaluation import engine
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
  photos._write_captions(
      raw, {'pictures': folder}, [f'pictures/{name}' for name in NAMES])
  rows = [json.loads(line)
          for line in (raw / 'captions.jsonl').read_text().splitlines()]
  assert [row['captions']['en'] for row in rows] == [
      ['a'], ['b'], ['beach 2024 05']]
  for row in rows:
    assert Image.open(raw / row['image']).size == (9, 9)
  assert sorted(path.name for path in folder.rglob('*')) == before


def test_several_folders_and_patterns(small_run, tmp_path):
  for name in ('a/2019', 'b/2019', 'c'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    _camera(tmp_path / name, len(name) + ord(name[0]))
  (tmp_path / 'c:d').mkdir()
  folders = photos.split_folders(
      os.pathsep.join(f'{tmp_path}/{name}' for name in ('a/2019', 'b/2019')))
  recipe = photos.Photos(
      tmp_path / 'run', tmp_path / 'data', *folders, weights=small_run,
      exclude=['*_2.png'])
  index = recipe.run().index
  assert index.image_ids == [
      f'{folder}/IMG_{number}.png' for folder in ('2019', '2019-2')
      for number in range(2)]
  assert [index.file(number) for number in (0, 2)] == [
      f'{tmp_path}/{name}/2019/IMG_0.png' for name in 'ab']
  assert json.loads((tmp_path / 'run' / 'left_out.json').read_text()) == {
      'lines': 2 * ['1 excluded: IMG_2.png']}
  # One that is called like two is one.
  assert photos.split_folders(f'{tmp_path}/c:d') == [tmp_path / 'c:d']
  with pytest.raises(errors.UserError, match='in the other; allowed: folders'):
    photos.Photos(tmp_path / 'run', tmp_path / 'data', tmp_path / 'a',
                  tmp_path / 'a' / '2019')


def _camera(folder, first_seed):
  folder.mkdir()
  for number in range(3):
    _draw(folder / f'IMG_{number}.png', first_seed + number)


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


def _draw(path, seed):
  rng = np.random.default_rng(seed)
  Image.fromarray(np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones(
      (16, 16, 1), np.uint8))).save(path, compress_level=0)


def test_only_new_pictures_are_read_and_embedded(
    small_run, tmp_path, monkeypatch):
  folder = tmp_path / 'pictures'
  _camera(folder, 0)
  seen = []
  for owner, name in ((extractors.GridExtractor, 'extract'),
                      (engine.Engine, 'embed_images')):
    real = getattr(owner, name)

    def count(self, what, *args, real=real, name=name):
      seen.append((name, len(getattr(what, 'mask_BR', what))))
      return real(self, what, *args)

    monkeypatch.setattr(owner, name, count)

  def vectors(run):
    """Returns {picture: its vector}, and how many were read and embedded."""
    seen.clear()
    index = photos.Photos(tmp_path / run, tmp_path / 'data', folder,
                          weights=small_run).run().index
    return dict(zip(index.image_ids, index.vectors_IE, strict=True)), [
        sum(count for one, count in seen if one == name)
        for name in ('extract', 'embed_images')]

  before, work = vectors('run')
  assert work == [3, 3]
  _draw(folder / 'new.png', 50)
  stamp = (folder / 'IMG_0.png').stat()
  _draw(folder / 'IMG_0.png', 51)  # Its size and date are as they were.
  os.utime(folder / 'IMG_0.png', ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
  (folder / 'IMG_1.png').rename(folder / 'a cat.png')
  (folder / 'IMG_2.png').unlink()
  found, work = vectors('run')
  assert work == [2, 2]
  whole, work = vectors('whole')
  assert work == [3, 3] and found.keys() == whole.keys() and len(whole) == 3
  for name, vector_E in whole.items():
    np.testing.assert_allclose(found[name], vector_E, atol=1e-5)
  renamed, old = ('pictures/a cat.png', 'pictures/IMG_1.png')
  np.testing.assert_array_equal(found[renamed], before[old])
  first = 'pictures/IMG_0.png'
  assert np.abs(found[first] - before[first]).max() > 1e-3
  # A workdir that is moved has its data and vectors with it.
  (tmp_path / 'run').rename(tmp_path / 'moved')
  seen.clear()
  assert {*search.load(tmp_path / 'moved').index.image_ids} == found.keys()
  assert not seen


def test_weights_that_are_no_run_are_refused_before_all_work(
    folder, tmp_path):
  recipe = photos.Photos(tmp_path / 'run', tmp_path / 'data', folder,
                         weights=tmp_path / 'nothing')
  with pytest.raises(errors.UserError, match='nothing: no checkpoint here'):
    recipe.run()
  assert not (tmp_path / 'run').exists()
