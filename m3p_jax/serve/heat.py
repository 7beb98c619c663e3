"""Pictures with regions and attention drawn over them, as HTML and SVG.

Letters: R regions.
"""

import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax.serve import markup

# A region over this part of the picture is the whole of it, no place in it.
_WHOLE = 0.95


def stack(address: str, alt: str, drawing: str) -> str:
  """Returns a picture under a drawing.

  Args:
    address: of the picture; '' = the one that the visitor's browser has.
    alt: what is read instead of it.
    drawing: SVG elements in per cent of the sides.
  """
  source = f'src="{address}"' if address else 'data-own'
  return (f'<div class="m3p-stack"><img {source} alt="{markup.text(alt)}">'
          '<svg viewBox="0 0 100 100" preserveAspectRatio="none" '
          f'aria-hidden="true">{drawing}</svg></div>')


def outlines(regions: batch_lib.Regions) -> str:
  """Returns the regions' boxes as SVG."""
  mask_R = np.asarray(regions.mask_BR[0])
  boxes_R4 = np.asarray(regions.boxes_BRG[0])[mask_R, :4]
  return ''.join(
      f'<rect class="m3p-box" {_rect(box)}/>' for box in boxes_R4)


def word(address: str, text: str, weights_R: np.ndarray,
         boxes_R4: np.ndarray) -> str:
  """Returns the picture with one word's attention.

  Args:
    address: see `stack`.
    text: the word.
    weights_R: its attention, sums to 1.
    boxes_R4: the regions, in parts of the sides.
  """
  size_R = np.prod(boxes_R4[:, 2:] - boxes_R4[:, :2], axis=1)
  place_R = (size_R > 0) & (size_R < _WHOLE)
  low, high = 0.0, 1.0
  if place_R.any():
    low, high = weights_R[place_R].min(), weights_R[place_R].max()
  drawing = ''.join(
      f'<rect {_rect(box)} fill-opacity="'
      f'{(weight - low) / max(high - low, 1e-9):.2f}"/>'
      for weight, box in zip(weights_R[place_R], boxes_R4[place_R],
                             strict=True))
  said = 'the whole picture'
  if place_R.any():
    best = int(np.argmax(np.where(place_R, weights_R, -1)))
    said = f'{_where(boxes_R4[best])}, {weights_R[best]:.0%} of its attention'
  return ('<figure class="m3p-word">' + stack(
      address, f'“{text}” looks most at {said}',
      f'<g class="m3p-heat">{drawing}</g>')
          + f'<figcaption dir="auto">{markup.text(text)}</figcaption></figure>')


def _where(box: np.ndarray) -> str:
  """Returns where a box lies, in words.

  >>> _where(np.array([0.0, 0.6, 0.3, 1.0]))
  'the bottom left'
  """
  x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
  row = ('top', 'middle', 'bottom')[min(int(y * 3), 2)]
  column = ('left', 'centre', 'right')[min(int(x * 3), 2)]
  return 'the ' + {'middle centre': 'centre'}.get(
      f'{row} {column}', f'{row} {column}')


def _rect(box: np.ndarray) -> str:
  x1, y1, x2, y2 = (100 * float(value) for value in box)
  return (f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" '
          f'height="{y2 - y1:.1f}"')
