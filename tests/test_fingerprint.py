"""Fingerprints: what changes them, and what does not."""

import os
import shutil

from PIL import Image
import pytest

from input_pipeline import fingerprint


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / 'folder'
  (path / 'more').mkdir(parents=True)
  for name in ('a.png', 'more/b.png'):
    Image.new('RGB', (9, 9)).save(path / name)
  (path / 'list.txt').write_text('a.png\nb.png\n')
  (path / 'large').write_bytes(bytes(100_000))
  os.symlink('more/b.png', path / 'link.png')
  return path


def _edit(path):
  old = path.stat()
  path.write_bytes(path.read_bytes()[::-1])
  os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 1))


def _edit_unseen(path):
  old = path.stat()
  path.write_bytes(path.read_bytes()[::-1])
  os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


CHANGES = {
    'added': lambda f: shutil.copy(f / 'a.png', f / 'more' / 'c.png'),
    'removed': lambda f: (f / 'more' / 'b.png').unlink(),
    'renamed': lambda f: (f / 'a.png').rename(f / 'z.png'),
    'edited': lambda f: _edit(f / 'more' / 'b.png'),
    'older': lambda f: os.utime(f / 'large', (1, 1)),
    'a list, its time as before': lambda f: _edit_unseen(f / 'list.txt'),
    'unreadable': lambda f: (f / 'a.png').chmod(0),
    'a link elsewhere': lambda f: (
        (f / 'link.png').unlink(), os.symlink('a.png', f / 'link.png'))}


@pytest.mark.parametrize('change', CHANGES)
def test_every_change_is_seen(folder, change):
  names = ['a.png', 'list.txt', 'large', 'link.png', 'more/b.png',
           'more/c.png', 'absent.png']
  before = fingerprint.of_path(folder), fingerprint.of_files(folder, names)
  assert before == (
      fingerprint.of_path(folder), fingerprint.of_files(folder, names))
  CHANGES[change](folder)
  assert fingerprint.of_path(folder) != before[0]
  assert fingerprint.of_files(folder, names) != before[1]


def test_what_is_no_change(folder, tmp_path, monkeypatch):
  before = fingerprint.of_path(folder)
  os.utime(folder / 'list.txt', (1, 1))  # It holds what it held.
  (folder / '.DS_Store').write_text('hidden')
  (folder / 'lock.mdb').write_text('somebody reads')
  os.symlink(folder, tmp_path / 'other name')
  monkeypatch.chdir(folder)
  for path in (folder, tmp_path / 'other name', '.', '../folder/more/..'):
    assert fingerprint.of_path(path) == before
    assert fingerprint.of_files(path, ['a.png', 'absent.png']) == (
        fingerprint.of_files(folder, ['a.png', 'absent.png']))


def test_a_link_to_another_folder_of_the_same_files_is_another(
    folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'copy')
  link = tmp_path / 'raw' / 'pictures'
  link.parent.mkdir()
  found = []
  for target in ('folder', 'copy'):
    link.unlink(missing_ok=True)
    os.symlink(tmp_path / target, link)
    found.append(fingerprint.of_files(tmp_path / 'raw', ['pictures/a.png']))
  assert found[0] != found[1]


def test_a_folder_linked_into_itself_has_an_end(folder):
  os.symlink('..', folder / 'more' / 'up')
  before = fingerprint.of_path(folder)
  _edit(folder / 'more' / 'b.png')
  assert fingerprint.of_path(folder) != before


def test_copies_are_equal_where_times_do_not_count(folder, tmp_path):
  (folder / 'link.png').unlink()
  shutil.copytree(folder, tmp_path / 'copy', copy_function=shutil.copy)
  one, other = (fingerprint.of_path(path, skip=['more'], has_times=False)
                for path in (folder, tmp_path / 'copy'))
  assert one == other
  _edit(folder / 'more' / 'b.png')
  for skip in ('more', os.path.realpath(folder / 'more')):
    assert fingerprint.of_path(folder, skip=[skip], has_times=False) == one
  (folder / 'large').write_bytes(bytes(100_001))
  assert fingerprint.of_path(folder, skip=['more'], has_times=False) != one
