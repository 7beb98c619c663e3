"""Large pictures: never the file itself, and nothing that is no picture."""

import functools
import io
import os

import numpy as np
from PIL import Image

from input_pipeline import copies
from input_pipeline.vision import pictures
from m3p_jax.search import index as index_lib
from m3p_jax.serve import pictures as pictures_lib


def _made(path, small=''):
  return functools.partial(
      pictures_lib.LargePictures().get, _index(path, small))


def _index(path, small=''):
  return index_lib.Index([{
      'image_id': 'a', 'captions': {}, 'picture': str(small),
      'original': str(path)}], np.zeros((1, 2), np.float32))


def _get(path):
  return _made(path)(0)


def test_a_picture_is_shrunk_turned_upright_and_stripped(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6  # A quarter turn.
  exif[0x010F] = 'a camera'
  path = tmp_path / 'a.jpg'
  Image.new('RGB', (3000, 1500), 'teal').save(path, exif=exif)
  content = _get(path)
  image = Image.open(io.BytesIO(content))
  assert (image.format, image.size) == ('WEBP', (480, 960))
  assert not image.getexif() and b'a camera' not in content


def test_a_drawing_is_served_as_pixels(tmp_path):
  path = tmp_path / 'a.svg'
  path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="40" '
                  'height="20"><script>alert(1)</script>'
                  '<rect width="40" height="20" fill="teal"/></svg>')
  content = _get(path)
  assert Image.open(io.BytesIO(content)).size == (512, 256)
  assert b'script' not in content


def test_what_is_gone_or_no_picture_is_not_served(tmp_path):
  path = tmp_path / 'a.png'
  assert _get(path) is None
  path.write_text('root:x:0:0')
  assert _get(path) is None
  path.unlink()
  path.symlink_to('/etc/passwd')
  assert _get(path) is None


def test_a_replaced_file_is_not_shown_for_the_picture_that_was_found(tmp_path):
  for name in copies.FOLDERS:
    (tmp_path / name).mkdir()
  path, draw = tmp_path / 'a.png', np.random.default_rng(0)
  pixels_HW3 = draw.integers(0, 256, (300, 400, 3), np.uint8)
  Image.fromarray(pixels_HW3).save(path)
  copies.keep(tmp_path, 'a', path, pictures.read(path).image)
  large = _made(path, copies.small(tmp_path, 'a'))
  before = large(0)
  assert Image.open(io.BytesIO(before)).size == (400, 300)
  path.touch()
  assert large(0) == before
  pixels_HW3[100:160, 100:160] = 255  # The same but for a spot.
  Image.fromarray(pixels_HW3).save(path)
  assert large(0) is None
  Image.new('RGB', (300, 400)).save(path)
  assert large(0) is None


def test_an_edited_picture_is_another_one_at_another_address(tmp_path):
  path, found = tmp_path / 'a.png', []
  index = _index(path)
  large = functools.partial(pictures_lib.LargePictures().get, index)
  for colour in ('teal', 'red', 'teal'):
    Image.new('RGB', (90, 90), colour).save(path, compress_level=0)
    os.utime(path, (1, 1) if colour == 'red' else None)
    found.append((pictures_lib.address(index, 0, is_large=True), large(0)))
  addresses, contents = zip(*found, strict=True)
  assert len(set(addresses)) == 3
  assert addresses[0].startswith(f'picture/{index.key(0)}/large?v=')
  assert contents[0] == contents[2] != contents[1]
