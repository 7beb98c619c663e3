"""How a cost grows, drawn: both axes logarithmic."""

from collections.abc import Mapping, Sequence
import html
import math

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 360, 70, 130, 30, 50
_COLOURS = ('#1f6f8b', '#c0504d', '#6a8f3c')
Points = Sequence[tuple[float, float]]


def draw(series: Mapping[str, Points], *, x_label: str, y_label: str) -> str:
  """Returns an SVG of the series; all values are positive.

  Args:
    series: name → (x, y) points.
    x_label: below the horizontal axis.
    y_label: above the vertical axis.
  """
  points = [point for one in series.values() for point in one]
  x_range, y_range = (
      (math.floor(math.log10(min(values)) + 1e-9),
       math.ceil(math.log10(max(values)) - 1e-9))
      for values in zip(*points, strict=True))

  def place(x: float, y: float) -> tuple[float, float]:
    across = (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0])
    up = (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0])
    return (_LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM))

  parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} '
           f'{_HEIGHT}" font-family="sans-serif" font-size="13">',
           f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>']
  for power in range(x_range[0], x_range[1] + 1):
    x, y = place(10.0 ** power, 10.0 ** y_range[0])
    parts += [_line(x, _TOP, x, y), _text(x, y + 18, f'{10.0 ** power:,.0f}')]
  for power in range(y_range[0], y_range[1] + 1):
    x, y = place(10.0 ** x_range[0], 10.0 ** power)
    parts += [_line(x, y, _WIDTH - _RIGHT, y),
              _text(x - 30, y + 4, f'{10.0 ** power:,.12g}')]
  for colour, (name, one) in zip(_COLOURS, series.items(), strict=False):
    placed = [place(*point) for point in one]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)
    parts += [f'<polyline points="{path}" fill="none" stroke="{colour}" '
              'stroke-width="2"/>',
              *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
                for x, y in placed),
              f'<text x="{placed[-1][0] + 8:.1f}" y="{placed[-1][1]:.1f}" '
              f'fill="{colour}">{html.escape(name)}</text>']
  return '\n'.join([
      *parts, _text((_WIDTH - _RIGHT + _LEFT) / 2, _HEIGHT - 12, x_label),
      f'<text x="8" y="16">{html.escape(y_label)}</text>', '</svg>', ''])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
  return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
          'stroke="#ddd"/>')


def _text(x: float, y: float, text: str) -> str:
  return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">'
          f'{html.escape(text)}</text>')
