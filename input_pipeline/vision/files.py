"""Pictures in files: drawings, cameras' own formats, and parts of archives."""

import hashlib
import io
import itertools
import pathlib
import re

import resvg_py

from input_pipeline.vision import pictures

# SVG drawings become PNG bytes of this longer side, without fonts or scripts.
_SVG_SIDE = 512
_SVG_MAX_BYTES = 20_000_000
# The renderer ends the process at some 200; of 17,000 drawings, most of them
# openclipart's, the deepest has 13.
_SVG_MAX_DEPTH = 100
_FLOAT = r'((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)'
_NUMBER = rf'\s*=\s*["\']\s*{_FLOAT}\s*(?:px|pt|mm|cm|in)?\s*["\']'
# Of pictures in other files: a drawing shows only what it holds.
_LINK = re.compile(r'\b(?:\w+:)?href\s*=\s*(["\'])(?!#|data:)[^"\']*\1')
_VIEW_BOX = re.compile(
    rf'viewBox\s*=\s*["\']\s*[-0-9.e]+[\s,]+[-0-9.e]+[\s,]+{_FLOAT}[\s,]+'
    rf'{_FLOAT}')
_TAG = re.compile(r'<(/?)[A-Za-z](?:[^<>"\']|"[^<"]*"|\'[^<\']*\')*?(/?)>')


def read(path: pathlib.Path) -> pictures.Picture:
  """Returns the picture of a file, as `pictures.read` does.

  Of an SVG that is its drawing, of RAW its preview.
  """
  ending = path.suffix.lower()
  is_svg = ending == '.svg'
  content = pictures.read_bytes(
      path, max_bytes=_SVG_MAX_BYTES if is_svg else pictures.MAX_BYTES)
  if is_svg:
    picture = pictures.read(_rasterise(content, path))
  else:
    picture = pictures.read(
        _find_preview(content, path) if ending in pictures.ENDINGS['RAW']
        else content, name=str(path))
  return picture._replace(sha256=hashlib.sha256(content).hexdigest())


def _find_preview(content: bytes, path: pathlib.Path) -> bytes:
  """Returns the JPEG in a RAW file, with the orientation of the camera."""
  try:
    import rawpy  # Optional: requirements-formats.txt.
  except ImportError as error:
    raise pictures.missing_library('RAW') from error
  try:
    with rawpy.imread(io.BytesIO(content)) as raw:
      preview = raw.extract_thumb()
  except rawpy.LibRawError as error:
    raise pictures.PictureError(
        'unreadable',
        f'{path} has no preview that can be read ({error})') from error
  if preview.format is not rawpy.ThumbFormat.JPEG:
    raise pictures.PictureError('unreadable', f'{path}: its preview is no JPEG')
  return bytes(preview.data)


def read_part(path: pathlib.Path, offset: int, size: int) -> pictures.Picture:
  """Returns the picture that lies in a file from one byte on."""
  try:
    with open(path, 'rb') as file:
      file.seek(offset)
      return pictures.read(file.read(size))
  except OSError as error:
    raise pictures.PictureError(
        (error.strerror or 'unreadable').lower(), str(path)) from error


def _rasterise(content: bytes, path: pathlib.Path) -> bytes:
  markup = _LINK.sub('', content.decode('utf-8', 'replace'))
  steps = [-1 if close else 0 if empty else 1
           for close, empty in _TAG.findall(markup)]
  if max(itertools.accumulate(steps), default=0) > _SVG_MAX_DEPTH:
    raise pictures.PictureError(
        'unreadable SVG',
        f'{path}: over {_SVG_MAX_DEPTH} elements in each other')
  size = _svg_size(markup)
  if size is None:
    raise pictures.PictureError(
        'SVG without size', f'{path}: needs a width and height or a viewBox')
  is_wide = size[0] >= size[1]
  try:
    return bytes(resvg_py.svg_to_bytes(
        svg_string=markup, background='white', skip_system_fonts=True,
        width=_SVG_SIDE if is_wide else None,
        height=None if is_wide else _SVG_SIDE))
  except ValueError as error:
    reason = 'SVG without size' if 'size' in str(error) else 'unreadable SVG'
    raise pictures.PictureError(reason, f'{path}: {error}') from error


def _svg_size(markup: str) -> tuple[float, float] | None:
  """Returns the drawing's (width, height) in any unit, None if it has none."""
  opening = re.search(r'<(?:\w+:)?svg\b[^>]*>', markup)
  if not opening:
    return None
  width, height = (re.search(rf'\b{name}{_NUMBER}', opening[0])
                   for name in ('width', 'height'))
  view_box = _VIEW_BOX.search(opening[0])
  if width and height:
    size = float(width[1]), float(height[1])
  elif view_box:
    size = float(view_box[1]), float(view_box[2])
  else:
    return None
  return size if min(size) > 0 else None
