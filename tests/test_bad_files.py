"""One bad file is one counted skip, and each picture has a copy of its own."""

import errno
import json
import os
import pathlib
import tempfile

from PIL import Image
import pytest

from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import prepare
from input_pipeline.vision import extractors
from input_pipeline.vision import files
from input_pipeline.vision import pictures
from tests import region_writers as writers
from tests import test_folder
from tests import toy

_OPENING = '<svg xmlns="http://www.w3.org/2000/svg" '
LONG = f'{"a very long prompt " * 14}.png'  # No file can be called so.


@pytest.fixture
def toy_extractor(monkeypatch):
  monkeypatch.setattr(extractors, 'GridExtractor', toy.Extractor)


def _list_pictures(folder, names):
  (folder / 'captions.jsonl').write_text(''.join(
      json.dumps({'image': name, 'captions': {'en': [f'a {name[:9]}']}}) + '\n'
      for name in names))


def _prepare(folder, data_dir, **options):
  made = prepare.prepare(
      'captions', str(data_dir), raw_dir=str(folder), **options)
  return made, json.loads((made / 'manifest.json').read_text())


@pytest.mark.skipif(not os.path.exists('/proc/self/mem'), reason='Linux only')
def test_each_is_counted_by_its_reason(tmp_path, toy_extractor):
  raw = tmp_path / 'raw'
  (raw / 'folder.png').mkdir(parents=True)
  Image.new('RGB', (40, 30)).save(raw / 'good.png')
  os.mkfifo(raw / 'pipe.png')
  os.symlink('/proc/self/mem', raw / 'damaged disk.png')
  os.symlink('/nowhere/a.png', raw / 'dead link.png')
  os.symlink('round.png', raw / 'round.png')
  (raw / 'file.png').touch()
  (raw / 'deep.svg').write_text(
      f'{_OPENING} width="9" height="9">{"<g>" * 999}{"</g>" * 999}</svg>')
  (raw / 'dots.svg').write_text(f'{_OPENING} width="1.2.3" height="4"/>')
  expected = {
      'folder.png': 'no regular file', 'pipe.png': 'no regular file',
      'damaged disk.png': os.strerror(errno.EIO).lower(),
      'dead link.png': 'missing', 'absent.svg': 'missing',
      'round.png': os.strerror(errno.ELOOP).lower(),
      'file.png/a.png': os.strerror(errno.ENOTDIR).lower(),
      LONG: os.strerror(errno.ENAMETOOLONG).lower(), 'file.png': 'empty file',
      'deep.svg': 'unreadable SVG', 'dots.svg': 'SVG without size'}
  _list_pictures(raw, ['good.png', *expected])
  with pytest.raises(errors.UserError, match='11 of 12 items.*--max_bad=0.9'):
    _prepare(raw, tmp_path / 'data', max_bad=0.9)
  folder, manifest = _prepare(raw, tmp_path / 'data', max_bad=0.92)
  assert manifest['counts'] == {'test': 1}
  skipped = [json.loads(line) for line in
             (folder / 'skipped.jsonl').read_text().splitlines()]
  assert sorted(row['reason'] for row in skipped) == sorted(expected.values())
  for name, reason in expected.items():
    assert any(row['reason'] == reason and f'{raw}/{name}' in row['item']
               for row in skipped), name


def test_a_full_disk_is_not_one_pictures_fault(
    tmp_path, toy_extractor, monkeypatch):
  Image.new('RGB', (40, 30)).save(tmp_path / 'good.png')
  _list_pictures(tmp_path, ['good.png'])

  def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(copies, 'shrink', fail)
  with pytest.raises(errors.UserError, match='cannot prepare.*No space left'):
    _prepare(tmp_path, tmp_path / 'data', max_bad=1.0)


def test_what_may_not_be_read_has_that_reason():
  with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder).chmod(0o755)
    for name, read in {
        'a.png': pictures.read, 'a.svg': files.read}.items():
      path = pathlib.Path(folder, name)
      path.touch()
      path.chmod(0)
      with test_folder.as_nobody(), pytest.raises(
          pictures.PictureError, match=f'permission denied: .*{name}'):
        read(path)


def test_names_that_no_file_can_have_are_refused(tmp_path):
  for name in ('a\0.png', 'a\ud83d.png'):
    with pytest.raises(pictures.PictureError, match='no name of a file'):
      pictures.read(tmp_path / name)
  (tmp_path / 'sparse.png').touch()
  os.truncate(tmp_path / 'sparse.png', 2**40)
  with pytest.raises(pictures.PictureError, match='too large: .*1099511627776'):
    pictures.read(tmp_path / 'sparse.png')


def test_no_two_pictures_share_a_copy(tmp_path, toy_extractor):
  names = ['trip/beach.png', 'trip__beach.png', 'x.png', 'X.png',
           f'{"a very long prompt " * 12}.png',
           '写真アルバム二千二十四年/夏休みの家族旅行で沖縄に行ったときの写真/'
           '美ら海水族館でジンベエザメを見た日の思い出.png']
  raw = tmp_path / 'raw'
  for number, name in enumerate(names):
    (raw / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (40, 30), (40 * number, 0, 0)).save(raw / name)
  _list_pictures(raw, names)
  folder, manifest = _prepare(raw, tmp_path / 'data', max_bad=0)
  assert manifest['counts'] == {'test': len(names)}
  for number, name in enumerate(names):
    assert copies.original(folder, name) == raw / name
    red = Image.open(copies.small(folder, name)).getpixel((9, 9))[0]
    assert abs(red - 40 * number) < 8


def test_copies_of_version_1_are_found(tmp_path):
  for name in copies.FOLDERS:
    (tmp_path / name).mkdir()
  image = Image.new('RGB', (40, 30))
  image.save(tmp_path / 'thumbnails' / 'trip__a.png.webp')
  (tmp_path / 'originals' / 'trip__a.png').symlink_to('/pictures/a.png')
  assert copies.small(tmp_path, 'trip/a.png') == (
      tmp_path / 'thumbnails' / 'trip__a.png.webp')
  assert copies.original(tmp_path, 'trip/a.png') == pathlib.Path(
      '/pictures/a.png')
  assert copies.small(tmp_path, LONG) is copies.original(tmp_path, LONG) is None


@pytest.mark.parametrize('name', ['mmf_npy', 'mmt_pt'])
def test_a_bad_file_of_features_is_one_skip(tmp_path, name):
  images = [writers.image(str(n), seed=n) for n in range(4)]
  path = getattr(writers, name)(tmp_path, images)
  ending = {'mmf_npy': '.npy', 'mmt_pt': '.pt'}[name]
  (path / f'0{ending}').unlink()
  os.symlink('/proc/self/mem', path / f'0{ending}')
  (path / f'1{ending}').unlink()
  os.mkfifo(path / f'1{ending}')
  (path / f'._2{ending}').write_bytes(b'\0\5\26\7')
  (path / f'folder{ending}').mkdir()
  os.symlink('/nowhere', path / f'dead{ending}')
  _list_pictures(tmp_path, [f'{n}.png' for n in range(4)])
  _, manifest = _prepare(
      tmp_path, tmp_path / 'data', features=str(path), features_format=name,
      max_bad=0.5)
  assert manifest['counts'] == {'test': 2}
  assert manifest['skipped'] == {
      os.strerror(errno.EIO).lower(): 1, 'no features': 1}
  assert manifest['features']['without_captions'] == 0
  assert manifest['features']['files'][0]['unreadable'] == 1
