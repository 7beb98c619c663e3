"""Large pictures: never the file itself, and nothing that is no picture."""

import io
import os

import numpy as np
from PIL import Image

from m3p_jax.searching import index as index_lib
from m3p_jax.serve import renditions


def _get(path):
  index = index_lib.Index(
      ['a'], [''], [''], [str(path)], np.zeros((1, 2), np.float32))
  return renditions.Renditions(index).get(0)


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


def test_an_edited_picture_is_another_one_at_another_address(tmp_path):
  path, found = tmp_path / 'a.png', []
  index = index_lib.Index(
      ['a'], [''], [''], [str(path)], np.zeros((1, 2), np.float32))
  large = renditions.Renditions(index)
  for colour in ('teal', 'red', 'teal'):
    Image.new('RGB', (90, 90), colour).save(path, compress_level=0)
    os.utime(path, (1, 1) if colour == 'red' else None)
    found.append((renditions.address(index, 0, is_large=True), large.get(0)))
  addresses, contents = zip(*found, strict=True)
  assert len(set(addresses)) == 3
  assert addresses[0].startswith('picture/0/large?v=')
  assert contents[0] == contents[2] != contents[1]
