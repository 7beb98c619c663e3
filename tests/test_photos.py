"""One's own pictures: what is read, what is written, what is refused.

tests/test_notebooks.py runs the whole recipe.
"""

import json

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


def test_what_is_prepared_stays_while_nothing_changes(folder, tmp_path):
  raw = tmp_path / 'raw'
  photos._write_captions(raw, folder, NAMES)
  first = (raw / 'captions.jsonl').stat().st_mtime_ns
  photos._write_captions(raw, folder, NAMES)
  assert (raw / 'captions.jsonl').stat().st_mtime_ns == first
  photos._write_captions(raw, folder / 'trips', ['beach_2024-05.jpeg'])
  assert (raw / 'pictures').readlink() == folder / 'trips'
  assert (raw / 'captions.jsonl').stat().st_mtime_ns > first


def test_weights_that_are_no_run_are_refused_before_all_work(
    folder, tmp_path):
  recipe = photos.Photos(tmp_path / 'run', tmp_path / 'data', folder,
                         weights=tmp_path / 'nothing')
  with pytest.raises(errors.UserError, match='nothing: no workdir of a run'):
    recipe.run()
  assert not (tmp_path / 'run').exists()
