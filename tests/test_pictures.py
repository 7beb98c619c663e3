"""Every kind of picture ends up as the same RGB on white, or has a reason; its
tile shows it undistorted, and says where it lies in it.
"""

import io
import pickle
import struct
import sys
import zlib

import numpy as np
from PIL import Image
import pytest

from input_pipeline.vision import files
from input_pipeline.vision import pictures

_WHITE, _RED = (255, 255, 255), (255, 0, 0)


def _encode(image: Image.Image, form: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def _square_on_clear() -> Image.Image:
  """Returns 40×20 RGBA: a red square at (10, 5)–(20, 15), else clear black."""
  image = Image.new('RGBA', (40, 20), (0, 0, 0, 0))
  image.paste((*_RED, 255), (10, 5, 20, 15))
  return image


def _pixels(source) -> np.ndarray:
  return np.asarray(pictures.read(source).image)


def test_transparency_becomes_white_in_every_mode():
  clear = _square_on_clear()
  palette = Image.new('P', (40, 20), 0)
  palette.putpalette([0, 0, 0, *_RED])
  palette.paste(1, (10, 5, 20, 15))
  keyed = Image.new('RGB', (40, 20), (0, 255, 0))
  keyed.paste(_RED, (10, 5, 20, 15))
  expected_HW3 = np.full((20, 40, 3), 255, np.uint8)
  expected_HW3[5:15, 10:20] = _RED
  for data in (_encode(clear, 'PNG'), _encode(clear, 'WEBP', lossless=True),
               _encode(palette, 'PNG', transparency=0),
               _encode(palette, 'GIF', transparency=0),
               _encode(keyed, 'PNG', transparency=(0, 255, 0))):
    np.testing.assert_array_equal(_pixels(data), expected_HW3)


def test_half_transparent_grey_is_blended():
  data = _encode(Image.new('LA', (9, 9), (0, 51)), 'PNG')
  np.testing.assert_array_equal(_pixels(data), np.full((9, 9, 3), 204))


def test_sixteen_bits_are_scaled_not_clipped():
  ramp_HW = np.tile(np.arange(16, dtype=np.uint16) << 12, (16, 1))
  for data in (_encode(Image.fromarray(ramp_HW), 'PNG'),
               _encode(Image.fromarray(ramp_HW), 'TIFF'),
               b'P5 16 16 65535\n' + ramp_HW.astype('>u2').tobytes()):
    np.testing.assert_array_equal(_pixels(data)[..., 0], ramp_HW >> 8)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_cameras_orientation_is_undone(orientation):
  # Each stored picture is what a camera held that way would write.
  upright = Image.new('RGB', (24, 16), 'white')
  upright.paste(_RED, (0, 0, 8, 8))
  stored = {
      1: lambda i: i,
      2: lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
      3: lambda i: i.transpose(Image.Transpose.ROTATE_180),
      4: lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
      5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
      6: lambda i: i.transpose(Image.Transpose.ROTATE_90),
      7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
      8: lambda i: i.transpose(Image.Transpose.ROTATE_270),
  }[orientation](upright)
  exif = Image.Exif()
  exif[0x0112] = orientation
  for form in ('PNG', 'TIFF'):
    picture = pictures.read(_encode(stored, form, exif=exif))
    assert (picture.width, picture.height) == (24, 16)
    assert picture.content == (0, 0, 8, 8)
    np.testing.assert_array_equal(np.asarray(picture.image), upright)
  # MPO is what many phones' .jpg really is.
  lossy = [('JPEG', {}), ('WEBP', {}), ('AVIF', {}), ('HEIF', {}), ('MPO', dict(
      save_all=True, append_images=[stored.copy()]))]
  for form, options in lossy:
    if form in (*pictures.formats(), 'MPO'):
      picture = pictures.read(_encode(
          stored, form, quality=95, exif=exif.tobytes(), **options))
      assert (picture.width, picture.height) == (24, 16), form
      red_HW = np.asarray(picture.image)[..., 1] < 128
      assert red_HW[:7, :7].all() and not red_HW[9:, 9:].any(), form


@pytest.mark.parametrize('form, message', [
    ('HEIF', 'HEIF without pillow-heif: .*-m pip install pillow-heif'),
    ('AVIF', 'AVIF without Pillow 11.3')])
def test_formats_are_read_with_their_library_and_named_without(
    monkeypatch, form, message):
  if form not in pictures.formats():
    pytest.skip(f'{form} cannot be read here')
  data = _encode(Image.new('RGB', (64, 48), _RED), form)
  assert pictures.read(data).image.size == (64, 48)
  monkeypatch.setattr(pictures, 'formats', lambda: ('PNG',))
  with pytest.raises(pictures.PictureError, match=message):
    pictures.read(data)


def _write_dng(path, preview, orientation):
  """Writes what a camera would: pixels of its sensor, and a JPEG."""
  sensor = np.full((64, 64), 1000, '<u2').tobytes()
  width, height = Image.open(io.BytesIO(preview)).size
  # Tag: its type, as TIFF numbers and `struct` names them, and its values.
  raw = {254: (4, 'I', 0), 256: (4, 'I', 64), 257: (4, 'I', 64),
         258: (3, 'H', 16), 259: (3, 'H', 1), 262: (3, 'H', 32803),
         273: (4, 'I', 0), 274: (3, 'H', orientation), 277: (3, 'H', 1),
         278: (4, 'I', 64), 279: (4, 'I', len(sensor)),
         33421: (3, 'H', 2, 2), 33422: (1, 'B', 0, 1, 1, 2),
         50706: (1, 'B', 1, 4, 0, 0)}
  small = {254: (4, 'I', 1), 256: (4, 'I', width), 257: (4, 'I', height),
           258: (3, 'H', 8), 259: (3, 'H', 7), 262: (3, 'H', 6),
           273: (4, 'I', 0), 277: (3, 'H', 3), 278: (4, 'I', height),
           279: (4, 'I', len(preview))}
  second = 8 + 6 + 12 * len(raw)
  start = second + 6 + 12 * len(small)
  raw[273], small[273] = (4, 'I', start), (4, 'I', start + len(sensor))
  content = b'II*\0' + struct.pack('<I', 8)
  for tags, following in ((raw, second), (small, 0)):
    content += struct.pack('<H', len(tags)) + b''.join(
        struct.pack('<HHI', tag, kind, len(values)) + struct.pack(
            f'<{len(values)}{code}', *values).ljust(4, b'\0')
        for tag, (kind, code, *values) in tags.items())
    content += struct.pack('<I', following)
  path.write_bytes(content + sensor + preview)


def test_of_raw_files_the_preview_is_read_upright(tmp_path, monkeypatch):
  pytest.importorskip('rawpy', reason='optional: requirements-formats.txt')
  left = Image.new('RGB', (200, 100), 'white')
  left.paste(_RED, (0, 0, 20, 100))
  path = tmp_path / 'IMG_1.DNG'
  _write_dng(path, _encode(left, 'JPEG', quality=95), 6)
  picture = files.read(path)
  assert picture.image.size == (100, 200) and len(picture.sha256) == 64
  np.testing.assert_allclose(
      np.asarray(picture.image)[[5, 195], 50], [_RED, (255,) * 3], atol=8)
  path.write_bytes(path.read_bytes()[:300])
  with pytest.raises(pictures.PictureError, match='no preview'):
    files.read(path)
  monkeypatch.setitem(sys.modules, 'rawpy', None)
  with pytest.raises(pictures.PictureError, match='pip install rawpy'):
    files.read(path)


def test_colours_of_print_are_turned_into_rgb():
  data = _encode(Image.new('CMYK', (32, 32), (0, 255, 255, 0)), 'JPEG')
  np.testing.assert_allclose(_pixels(data), np.full((32, 32, 3), _RED), atol=2)


def test_first_frame_of_an_animation():
  frames = [Image.new('RGB', (16, 16), c) for c in ('red', 'blue')]
  for form in ('GIF', 'WEBP', 'PNG', 'AVIF'):
    data = _encode(frames[0], form, save_all=True, append_images=frames[1:],
                   lossless=True)
    np.testing.assert_allclose(_pixels(data)[8, 8], _RED, atol=2)


def test_sources_agree(tmp_path):
  image = _square_on_clear()
  (tmp_path / 'a.png').write_bytes(_encode(image, 'PNG'))
  picture = pictures.read(tmp_path / 'a.png')
  assert (picture.height, picture.width) == (20, 40)
  assert picture.content == (10, 5, 20, 15)
  for source in (str(tmp_path / 'a.png'), image, _pixels(image)):
    np.testing.assert_array_equal(_pixels(source), np.asarray(picture.image))


def test_a_callers_picture_is_left_alone():
  data = _encode(Image.new('RGB', (4000, 3000), 'red'), 'JPEG')
  image = Image.open(io.BytesIO(data))
  assert pictures.read(image).image.width < 4000
  assert image.size == (4000, 3000)


def test_content_of_pictures_without_transparency():
  noisy = np.random.default_rng(0).integers(248, 256, (50, 50, 3), np.uint8)
  noisy[10:20, 30:45] = 128
  assert pictures.read(noisy).content == (30, 10, 45, 20)
  blank = np.full((50, 60, 3), 255, np.uint8)
  assert pictures.read(blank).content == (0, 0, 60, 50)


@pytest.mark.parametrize('mode', ['RGBA', 'P', 'L', 'RGB'])
def test_large_pictures_shrink_and_keep_their_coordinates(mode):
  large = _square_on_clear().resize((4000, 2000), Image.Resampling.NEAREST)
  if mode != 'RGBA':
    white = Image.new('RGB', large.size, 'white')
    white.paste(large, mask=large)
    large = white.convert(mode)
  picture = pictures.read(_encode(large, 'PNG'))
  assert max(picture.image.size) < 2048
  assert (picture.width, picture.height) == (4000, 2000)
  np.testing.assert_allclose(picture.content, (1000, 500, 2000, 1500), atol=4)
  pixels_HW3 = np.asarray(picture.image)
  scale = picture.image.width / 4000
  centre = pixels_HW3[int(1000 * scale), int(1500 * scale)]
  assert centre[0] > 70 and centre[1] < 80
  # Clear black lends no darkness to what is beside it.
  assert tuple(pixels_HW3[0, 0]) == (255, 255, 255)
  if mode == 'RGBA':
    assert pixels_HW3[..., 0].min() == 255


def test_a_large_jpeg_is_shrunk_while_decoding():
  large = Image.new('RGB', (6000, 4000), 'white')
  large.paste(_RED, (3000, 0, 6000, 4000))
  picture = pictures.read(_encode(large, 'JPEG'))
  assert max(picture.image.size) < 2048
  assert (picture.width, picture.height) == (6000, 4000)
  np.testing.assert_allclose(picture.content, (3000, 0, 6000, 4000), atol=16)


def _claim_png(width: int, height: int) -> bytes:
  """Returns a PNG that claims a size and holds no pixels."""
  size = struct.pack('>IIBBBBB', width, height, 8, 6, 0, 0, 0)
  data = b'\x89PNG\r\n\x1a\n'
  for chunk in (b'IHDR' + size, b'IDAT'):
    data += struct.pack('>I', len(chunk) - 4) + chunk
    data += struct.pack('>I', zlib.crc32(chunk))
  return data


_PNG = _encode(_square_on_clear(), 'PNG')
_NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
_JPEG = _encode(Image.fromarray(_NOISE), 'JPEG')


@pytest.mark.parametrize('data, reason', [
    (b'', 'empty file'),
    (b'hello world', 'unreadable'),
    (_PNG[:60], 'unreadable'),
    (_JPEG[: len(_JPEG) // 2], 'unreadable'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'unreadable'),
    (_encode(Image.new('RGB', (7, 100)), 'PNG'), 'too small'),
    (_encode(Image.new('F', (9, 9)), 'TIFF'), 'not RGB'),
    (_encode(Image.new('I', (9, 9), 200), 'TIFF'), 'not RGB'),
    (b'\0\0\0\x18ftypavif' + bytes(99), 'unreadable'),
    (_claim_png(13_000, 13_800), 'too large'),
    (_claim_png(60_000, 60_000), 'too large'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'svg'),
    (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- x -->\n<svg/>', 'svg'),
    (np.zeros((20, 20), np.uint8), 'not RGB'),
    (np.zeros((20, 20, 3), np.float32), 'not RGB'),
    (np.zeros((0, 20, 3), np.uint8), 'too small')])
def test_what_cannot_be_used_has_a_reason(data, reason):
  with pytest.raises(pictures.PictureError) as caught:
    pictures.read(data)
  assert caught.value.reason == reason
  copy = pickle.loads(pickle.dumps(caught.value))
  assert (copy.reason, str(copy)) == (reason, str(caught.value))


def test_reasons_name_the_file(tmp_path):
  with pytest.raises(pictures.PictureError, match=r'none\.png') as caught:
    pictures.read(tmp_path / 'none.png')
  assert caught.value.reason == 'missing'
  (tmp_path / 'a.svgz').write_bytes(b'\x1f\x8b')
  with pytest.raises(pictures.PictureError, match=r'a\.svgz') as caught:
    pictures.read(tmp_path / 'a.svgz')
  assert caught.value.reason == 'svg'


def test_the_limit_is_checked_before_decoding():
  # Decoding would find no pixels and say 'unreadable'.
  with pytest.raises(pictures.PictureError, match='3000×3000') as caught:
    pictures.read(_claim_png(3000, 3000), max_pixels=1_000_000)
  assert caught.value.reason == 'too large'


def _cut(image: Image.Image) -> pictures.Tile:
  return pictures.cut_tile(pictures.read(image), 224)


@pytest.mark.parametrize('width, height, square', [
    (200, 100, (0, -50, 200, 150)), (100, 200, (-50, 0, 150, 200)),
    (64, 64, (0, 0, 64, 64))])
def test_letterbox_is_centred_on_white(width, height, square):
  tile = _cut(Image.new('RGB', (width, height), _RED))
  assert tile.square == square
  is_red_SS = (tile.pixels_SS3 == _RED).all(axis=-1)
  is_white_SS = (tile.pixels_SS3 == _WHITE).all(axis=-1)
  assert (is_red_SS | is_white_SS).all()
  assert is_red_SS.mean() == min(width, height) / max(width, height)
  np.testing.assert_array_equal(is_red_SS, is_red_SS[::-1, ::-1])


def test_crop_leaves_out_the_empty_border():
  image = Image.new('RGB', (1000, 600), _WHITE)
  image.paste(_RED, (500, 200, 600, 300))
  tile = _cut(image)
  assert tile.square == (495, 195, 605, 305)
  assert (tile.height, tile.width) == (600, 1000)
  share = (tile.pixels_SS3[..., 1] < 128).mean()
  assert share == pytest.approx((100 / 110) ** 2, rel=0.02)


def test_crop_margin_stays_inside_the_picture():
  image = Image.new('RGB', (100, 100), _WHITE)
  image.paste(_RED, (0, 0, 80, 40))
  x1, y1, x2, y2 = _cut(image).square
  assert (x1, x2) == (0, 84)
  # 44 rows high with its margin, so 20 rows of white above and below.
  assert y2 - y1 == 84 and y1 == pytest.approx(-20, abs=0.5)


def test_square_maps_pixels_back():
  image = Image.new('RGB', (300, 200), _WHITE)
  image.paste((0, 0, 0), (100, 60, 200, 160))
  image.paste(_RED, (120, 80, 130, 90))
  tile = _cut(image)
  rows, columns = np.nonzero(tile.pixels_SS3[..., 0] > 200)
  inside = (tile.pixels_SS3[rows, columns, 1]) < 100
  x1, y1, x2, _ = tile.square
  scale = (x2 - x1) / 224
  x = x1 + (columns[inside].mean() + 0.5) * scale
  y = y1 + (rows[inside].mean() + 0.5) * scale
  assert (x, y) == pytest.approx((125, 85), abs=1)


def test_extreme_shapes_keep_a_line():
  for size in ((5000, 8), (8, 5000)):
    tile = _cut(Image.new('RGB', size, _RED))
    assert tile.pixels_SS3.shape == (224, 224, 3)
    assert ((tile.pixels_SS3 == _RED).all(axis=-1)).sum() == 224
