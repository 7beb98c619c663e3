"""A user's folder: which files are its pictures, and what else is counted."""

import contextlib
import os
import pathlib
import tempfile

from PIL import Image
import pytest

from input_pipeline import errors
from input_pipeline.vision import folder as folder_lib
from input_pipeline.vision import pictures


@contextlib.contextmanager
def as_nobody():
  """Lets permissions count, which they do not for root."""
  is_root = os.geteuid() == 0
  if is_root:
    os.seteuid(65534)
  try:
    yield
  finally:
    if is_root:
      os.seteuid(0)


def _write(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (9, 9)).save(folder / name, format='PNG')


def test_pictures_of_all_folders_and_endings_are_found(tmp_path):
  names = ['a.png', 'album.jpg/x.bmp', 'b.JPG', 'camera.mpo', 'chrome.jfif',
           'grey.pgm', 'new.avif', 'old.jif', 'older.jpe', 'raw.ppm',
           'trips/beach.jpeg']
  _write(tmp_path, *names)
  (tmp_path / 'drawing.svg').touch()
  assert folder_lib.find(tmp_path) == (sorted([*names, 'drawing.svg']), {})


def test_what_is_not_the_users_is_counted(tmp_path):
  _write(tmp_path, 'a.png', '._a.png', '.thumbnails/t.png', '.Trash-1000/x.jpg',
         '@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg', '$RECYCLE.BIN/d.jpg',
         'run/report.png', 'data/emoji/thumbnails/1.webp')
  (tmp_path / 'run' / 'checkpoints').mkdir()
  (tmp_path / 'run' / 'config.json').touch()
  (tmp_path / 'data' / 'emoji' / 'manifest.json').touch()
  for name in ('notes.txt', 'README', '.DS_Store'):
    (tmp_path / name).touch()
  found = folder_lib.find(tmp_path)
  assert found.names == ['a.png']
  assert found.skipped == {
      'folder of a run or of prepared data': ['data/emoji', 'run'],
      'hidden': ['.Trash-1000', '._a.png', '.thumbnails'],
      'of another ending': ['README', 'notes.txt'],
      "of the system's own": ['$RECYCLE.BIN', '@eaDir']}
  assert '2 of another ending: none 1, .txt 1' in found.lines()


def test_patterns_exclude_names_and_paths(tmp_path):
  _write(tmp_path, 'a.png', 'b_small.png', 'trips/2019/c.png', 'trips/d.png',
         'screenshots/e.png', 'trips/screenshots/f.png')
  found = folder_lib.find(
      tmp_path, ['*_small.png', 'trips/2019', 'screenshots'])
  assert found.names == ['a.png', 'trips/d.png']
  assert found.skipped == {'excluded': [
      'b_small.png', 'screenshots', 'trips/2019', 'trips/screenshots']}
  assert folder_lib.find(tmp_path, ['*.jpg']).skipped == {}


def test_links_are_followed_once(tmp_path):
  inside, outside = tmp_path / 'a' / 'pictures', tmp_path / 'b'
  _write(inside, 'a.png', 'trips/x.png')
  _write(outside, 'linked.png', 'deep/y.png', 'single.jpg')
  _write(tmp_path, 'a/beside.png', 'c/alone.jpg')
  for name, target in {
      '2022': outside, '2023': outside, '1 first': inside / 'trips',
      'loop': inside, 'around': inside.parent, 'trips/up': inside / 'trips',
      'itself': inside / 'itself', 'dead.jpg': tmp_path / 'gone.jpg',
      'own.png': inside / 'a.png', 'twice.jpg': outside / 'single.jpg',
      'alone.jpg': tmp_path / 'c' / 'alone.jpg',
      'again.jpg': tmp_path / 'c' / 'alone.jpg', '.hidden': outside}.items():
    (inside / name).symlink_to(target)
  (outside / 'back').symlink_to(inside)
  found = folder_lib.find(inside)
  assert found.names == [
      '2022/deep/y.png', '2022/linked.png', '2022/single.jpg', 'a.png',
      'again.jpg', 'trips/x.png']
  assert found.skipped == {
      'hidden': ['.hidden'],
      'link that leads nowhere (No such file or directory)': ['dead.jpg'],
      'link that leads nowhere (Too many levels of symbolic links)': ['itself'],
      'link to what is read already': [
          '1 first', '2022/back', '2023', 'alone.jpg', 'around', 'loop',
          'own.png', 'trips/up', 'twice.jpg']}
  for name in found.names:
    assert Image.open(inside / name).size == (9, 9)


def test_what_cannot_be_read_is_counted(tmp_path):
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    folder.chmod(0o755)
    _write(folder, 'a.png', 'private/b.png')
    (folder / 'private').chmod(0)
    os.mkfifo(folder / 'pipe.jpg')
    with as_nobody():
      found = folder_lib.find(folder)
    (folder / 'private').chmod(0o755)
  assert found == (['a.png'], {'no regular file': ['pipe.jpg'],
                               'unreadable (Permission denied)': ['private']})


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path):
  _write(tmp_path, 'a.png')
  os.rename(tmp_path / 'a.png', os.fsencode(tmp_path) + b'/caf\xe9.png')
  os.mkdir(os.fsencode(tmp_path) + b'/\xe9t\xe9')
  with pytest.raises(errors.UserError, match=(
      r'2 with a name that is not UTF-8: caf\\xe9.png, \\xe9t\\xe9')):
    folder_lib.find(tmp_path)
  _write(tmp_path, 'b.png')
  assert folder_lib.find(tmp_path).names == ['b.png']


def test_a_format_without_its_library_comes_with_the_command(
    tmp_path, monkeypatch):
  _write(tmp_path, 'IMG_0001.HEIC', 'new.avif', 'a.png', 'b.CR2')
  monkeypatch.setattr(pictures, 'formats', lambda: ('PNG', 'HEIF'))
  found = folder_lib.find(tmp_path)
  assert found.names == ['IMG_0001.HEIC', 'a.png']
  line, raw = found.lines()
  assert raw.startswith('1 RAW without rawpy') and raw.endswith(': b.CR2')
  assert line.startswith('1 AVIF without Pillow 11.3 (to read it, run: ')
  assert line.endswith("-m pip install 'pillow>=11.3'): new.avif")


def test_no_picture_and_no_folder_are_named(tmp_path):
  (tmp_path / 'a.txt').touch()
  with pytest.raises(errors.UserError, match=(
      'no picture in it or below.*passed over: 1 of another ending: .txt 1')):
    folder_lib.find(tmp_path)
  with pytest.raises(errors.UserError, match='nowhere: no such folder'):
    folder_lib.find(tmp_path / 'nowhere')
