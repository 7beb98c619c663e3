"""Small charts as inline SVG and HTML: no script, no font, no network.

Colours are the style sheet's: series i has class `s{i}`.
"""

from collections.abc import Mapping, Sequence
import html
import math

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 26, 36
# More points than pixels say nothing.
MAX_POINTS = 80
# So few points are marked.
_MAX_DOTS = 12


def thin(points: Points) -> list[tuple[float, float]]:
  """Returns at most `MAX_POINTS` points, each the mean of its neighbours."""
  size = max(1, math.ceil(len(points) / MAX_POINTS))
  bins = [points[i:i + size] for i in range(0, len(points), size)]
  return [(sum(x for x, _ in part) / len(part),
           sum(y for _, y in part) / len(part)) for part in bins]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
  """Returns round numbers that cover the range, first ≤ low, last ≥ high."""
  if not high > low:
    low, high = low - 0.5, high + 0.5
  raw = (high - low) / count
  magnitude = 10 ** math.floor(math.log10(raw))
  step = magnitude * next(
      factor for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
  first = math.floor(low / step + 1e-9)
  last = math.ceil(high / step - 1e-9)
  return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
  """Returns a short form: 1234 → '1.2k', 0.05 → '0.05'."""
  if abs(value) >= 1e6:
    return f'{value / 1e6:.3g}M'
  if abs(value) >= 1e4:
    return f'{value / 1e3:.3g}k'
  return f'{value:.4g}'


class _Frame:
  """Where values lie in a chart, and its axes."""

  def __init__(self, x_all: Sequence[float], y_all: Sequence[float]):
    self._x = ticks(min(x_all), max(x_all))
    self._y = ticks(min(y_all), max(y_all))

  def place(self, x: float, y: float) -> tuple[float, float]:
    """Returns the point in pixels."""
    across = (x - self._x[0]) / (self._x[-1] - self._x[0])
    up = (y - self._y[0]) / (self._y[-1] - self._y[0])
    return (_LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM))

  def axes(self, x_label: str) -> str:
    """Returns grid lines and the numbers on both axes."""
    parts = []
    for tick in self._y:
      y = self.place(self._x[0], tick)[1]
      parts.append(
          f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
          f'y1="{y:.1f}" y2="{y:.1f}"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" '
          f'text-anchor="end">{number(tick)}</text>')
    for tick in self._x:
      x = self.place(tick, self._y[0])[0]
      parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 14}" '
                   f'text-anchor="middle">{number(tick)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" '
                 f'text-anchor="middle">{html.escape(x_label)}</text>')
    return ''.join(parts)


def lines(series: Mapping[str, Points], *, title: str, x_label: str,
          y_label: str = '') -> str:
  """Returns a line chart as SVG; each point tells its values when hovered.

  Args:
    series: name → (x, y) points; finite, at least one.
    title: above the chart.
    x_label: below it.
    y_label: of a point's value, for the hover text.
  """
  shown = {name: thin(points) for name, points in series.items()}
  frame = _Frame([x for points in shown.values() for x, _ in points],
                 [y for points in shown.values() for _, y in points])
  parts = [(f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{html.escape(title)}"><text class="title" '
            f'x="{_LEFT}" y="14">{html.escape(title)}</text>'),
           frame.axes(x_label)]
  for index, (name, points) in enumerate(shown.items()):
    placed = [frame.place(x, y) for x, y in points]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)
    dots = ' dots' if len(points) <= _MAX_DOTS else ''
    parts.append(f'<g class="s{index}{dots}"><polyline points="{path}"/>')
    parts += [
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"><title>'
        f'{html.escape(name)}, {html.escape(x_label)} {number(x)}: '
        f'{y:.4g} {html.escape(y_label)}</title></circle>'
        for (x, y), (px, py) in zip(points, placed, strict=True)]
    parts.append('</g>')
  return ''.join(parts) + '</svg>'


def legend(names: Sequence[str]) -> str:
  """Returns the colours of the series, in their order."""
  return '<p class="legend">' + ''.join(
      f'<span class="s{index}"><i></i>{html.escape(name)}</span>'
      for index, name in enumerate(names)) + '</p>'


def bars(values: Mapping[str, Mapping[str, float]], series: Sequence[str], *,
         marks: Mapping[str, float], labels: Mapping[str, str],
         top: float) -> str:
  """Returns grouped horizontal bars as HTML, which any width can show.

  Args:
    values: row → series → value ≥ 0; series that are absent are left out.
    series: their order, which decides the colours.
    marks: row → value of a thin line across its bars (chance).
    labels: row → its name, for the hover text.
    top: value of a bar as long as there is room.
  """
  top = top or 1.0
  parts = []
  for row, cells in values.items():
    label = html.escape(labels.get(row, row))
    parts.append(f'<div class="row"><span class="name" title="{label}">'
                 f'{html.escape(row)}</span><div class="bars">')
    for index, name in enumerate(series):
      if name in cells:
        share = 100 * cells[name] / top
        parts.append(
            f'<div class="track s{index}" title="{label}, '
            f'{html.escape(name)}: {cells[name]:.1f}"><div class="bar" '
            f'style="width:{share:.2f}%"></div><b>{cells[name]:.1f}</b></div>')
    if row in marks:
      parts.append(f'<div class="mark" style="--at:{marks[row] / top:.4f}" '
                   f'title="chance: {marks[row]:.1f}"></div>')
    parts.append('</div></div>')
  return ''.join(parts)
