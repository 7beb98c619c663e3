"""SVG drawings to PNG bytes, without fonts, links or scripts."""

import itertools
import pathlib
import re

import resvg_py

from input_pipeline.vision import pictures

# Pixels of the longer side.
_SIDE = 512
_MAX_BYTES = 20_000_000
# The renderer ends the process at some 200; of 17,000 drawings, most of them
# openclipart's, the deepest has 13.
_MAX_DEPTH = 100
_FLOAT = r'((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)'
_NUMBER = rf'\s*=\s*["\']\s*{_FLOAT}\s*(?:px|pt|mm|cm|in)?\s*["\']'
# Of pictures in other files: a drawing shows only what it holds.
_LINK = re.compile(r'\b(?:\w+:)?href\s*=\s*(["\'])(?!#|data:)[^"\']*\1')
_VIEW_BOX = re.compile(
    rf'viewBox\s*=\s*["\']\s*[-0-9.e]+[\s,]+[-0-9.e]+[\s,]+{_FLOAT}[\s,]+'
    rf'{_FLOAT}')
_TAG = re.compile(r'<(/?)[A-Za-z](?:[^<>"\']|"[^<"]*"|\'[^<\']*\')*?(/?)>')


def _size(markup: str) -> tuple[float, float] | None:
  """Returns the drawing's (width, height) in any unit, None if it has none."""
  opening = re.search(r'<(?:\w+:)?svg\b[^>]*>', markup)
  if not opening:
    return None
  found = [re.search(rf'\b{name}{_NUMBER}', opening[0])
           for name in ('width', 'height')]
  if not all(found):
    view_box = _VIEW_BOX.search(opening[0])
    found = [view_box, view_box] if view_box else []
    sizes = [float(view_box[1]), float(view_box[2])] if view_box else []
  else:
    sizes = [float(match[1]) for match in found]
  return (sizes[0], sizes[1]) if sizes and min(sizes) > 0 else None


def _depth(markup: str) -> int:
  """Returns how many elements lie in each other at most."""
  steps = [-1 if close else 0 if empty else 1
           for close, empty in _TAG.findall(markup)]
  return max(itertools.accumulate(steps), default=0)


def rasterise(path: pathlib.Path) -> bytes:
  """Returns the drawing as PNG bytes on white, longer side 512 pixels.

  Raises:
    PictureError: see `pictures.read_bytes`; no usable size, or not a drawing.
  """
  content = pictures.read_bytes(path, max_bytes=_MAX_BYTES)
  markup = _LINK.sub('', content.decode('utf-8', 'replace'))
  if _depth(markup) > _MAX_DEPTH:
    raise pictures.PictureError(
        'unreadable SVG', f'{path}: over {_MAX_DEPTH} elements in each other')
  size = _size(markup)
  if size is None:
    raise pictures.PictureError(
        'SVG without size', f'{path}: needs a width and height or a viewBox')
  wide = size[0] >= size[1]
  try:
    return bytes(resvg_py.svg_to_bytes(
        svg_string=markup, background='white', skip_system_fonts=True,
        width=_SIDE if wide else None, height=None if wide else _SIDE))
  except ValueError as error:
    reason = 'SVG without size' if 'size' in str(error) else 'unreadable SVG'
    raise pictures.PictureError(reason, f'{path}: {error}') from error
