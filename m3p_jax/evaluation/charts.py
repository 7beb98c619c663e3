"""The report's curves, and where their points lie.

report.html.j2 draws the charts as SVG.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from m3p_jax.evaluation import statistics

Content = Mapping[str, Any]
Points = Sequence[tuple[float, float]]

DIRECTIONS = {'text_to_image': 'text → image', 'image_to_text': 'image → text'}
_KS = (1, 2, 3, 5, 7, 10, 15, 20, 30)
# Losses that have a baseline of their own: see objectives/frequencies.py.
_LOSSES = {'loss': 'unigram_loss', 'class_loss': 'class_unigram_loss',
           'feature_loss': 'mean_feature_loss'}

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 26, 36
# More points than pixels say nothing.
MAX_POINTS = 80
# So few points are marked.
_MAX_DOTS = 12


class Table(NamedTuple):
  """Titles of the columns, and rows of texts; '*' in front makes one bold."""
  head: Sequence[str]
  rows: Sequence[Sequence[str]]


class Series(NamedTuple):
  """A line: whether its points are marked, and (x, y, hover text) of each."""
  is_dotted: bool
  points: list[tuple[float, float, str]]


class Chart(NamedTuple):
  """A chart; positions are pixels from the upper left."""
  title: str
  x_label: str
  x_ticks: list[tuple[float, str]]
  y_ticks: list[tuple[float, str]]
  series: list[Series]


def lines(series: Mapping[str, Points], *, title: str, x_label: str,
          y_label: str = '') -> Chart:
  """Returns a line chart; each point tells its values when hovered.

  A series is (x, y) points, finite, at least one.
  """
  shown = {name: thin(points) for name, points in series.items()}
  x_ticks, y_ticks = (
      ticks(min(values), max(values)) for values in zip(*(
          point for points in shown.values() for point in points),
                                                        strict=True))

  def across(x: float) -> float:
    share = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)

  def down(y: float) -> float:
    share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

  return Chart(
      title, x_label, [(across(x), number(x)) for x in x_ticks],
      [(down(y), number(y)) for y in y_ticks],
      [Series(len(points) <= _MAX_DOTS, [
          (across(x), down(y),
           f'{name}, {x_label} {number(x)}: {y:.4g} {y_label}')
          for x, y in points]) for name, points in shown.items()])


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


def recall(ranks: Mapping[str, Mapping[str, statistics.Language]]
            ) -> dict[str, Any]:
  """Returns R@k by k, a chart a direction, a line a setting with ranks."""
  ranks = {row: languages for row, languages in ranks.items() if languages}
  if not ranks:
    return {}
  return {'series': list(ranks), 'charts': [lines(
      {row: [(k, 100.0 * float(np.mean([
          (one[direction].rank_Q <= k).mean()
          for one in languages.values()]))) for k in _KS]
       for row, languages in ranks.items()}, title=title, x_label='k',
      y_label='%') for direction, title in DIRECTIONS.items()]}


def two_stages(files: Sequence[Content]) -> dict[str, Any]:
  """Returns what re-ranking the first k costs and gives.

  Of the last setting with a curve, of the exact engine where there is one.
  """
  found = [(content['mode'], setting, entry['curve'])
           for content in files
           for setting, entry in content['settings'].items()
           if entry.get('curve')]
  if not found:
    return {}
  mode, setting, curve = max(
      enumerate(found), key=lambda one: (one[1][0] == 'joint', one[0]))[1]
  drawn = [lines(
      {'two stages': [(point[key], point['mean_recall']) for point in curve]},
      title=f'mean recall by {title}', x_label=x_label)
           for key, title, x_label in (
               ('top_k', 'k (0 = dual alone)', 'k'),
               ('pairs_share', 'share of pairs scored', '% of all pairs'))]
  head = ['k', 'pairs', '% of all', 'mean recall']
  rows = [[str(point['top_k']), f'{point["pairs"]:,}',
           f'{point["pairs_share"]:.1f}', f'{point["mean_recall"]:.1f}']
          for point in curve]
  if mode == 'joint':
    head += ['same first', 'same first ten']
    for row, point in zip(rows, curve, strict=True):
      row += [f'{point["agreement"][name]:.1f} %'
              for name in ('first', 'first10')]
  return {'setting': setting, 'mode': mode, 'charts': drawn,
          'table': Table(head, rows)}


def reranking(choice: Content) -> dict[str, Any]:
  """Returns the curves behind the choice of top k and joint weight.

  `choice` is rerank_choice.json, see `rerank.Choice.to_json`; {} for none.
  """
  if not choice:
    return {}
  by_k = sorted((int(k), v) for k, v in choice['top_k_curve'].items())
  by_weight = sorted(
      (float(w), v) for w, v in choice['joint_weight_curve'].items())
  dual, largest = by_k[0][1], by_k[-1][0]
  series = ['re-ranked', 'dual alone']
  drawn = [lines(
      {series[0]: by_k}, title='mean recall by top k (0 = dual alone)',
      x_label='candidates re-ranked')]
  weighed = [(w, v) for w, v in by_weight if w >= 0]
  if len(weighed) > 1:
    drawn.append(lines(
        dict(zip(series, (weighed, [(w, dual) for w, _ in weighed]),
                 strict=True)),
        title=f'mean recall by joint weight, top {largest}',
        x_label='joint weight'))
  return {'series': series, 'charts': drawn, 'top_k': choice['top_k'],
          'weight': choice['joint_weight'], 'dual': dual, 'largest': largest,
          'reranked': dict(by_k)[choice['top_k']],
          # Of the match logit without a dual score.
          'alone': dict(by_weight).get(-1.0)}


def losses(runs: Mapping[str, Sequence[Mapping[str, float]]]
            ) -> dict[str, Any]:
  """Returns loss curves of every task of every stage, and what was learned."""
  stages, learned = {}, []
  for stage, entries in runs.items():
    tasks = dict.fromkeys(
        key.removesuffix('/loss') for entry in entries for key in entry
        if key.endswith('/loss') and not key.startswith(
            ('validation/', 'train/')))
    for task in tasks:
      series = {
          'training': _points(entries, f'{task}/loss'),
          'validation': _points(entries, f'validation/{task}/loss')}
      stages.setdefault(stage, []).append(lines(
          series, title=task, x_label='step', y_label='nats'))
      learned += _learned(entries, stage, task)
  return {'stages': stages, 'learned': Table(
      ['task', 'first loss', 'frequencies alone', 'last loss',
       'last accuracy'], learned)}


def _learned(entries: Sequence[Mapping[str, float]], stage: str,
             task: str) -> list[list[str]]:
  """Returns a task's rows: first, baseline's and last validation losses."""

  def points(name: str) -> list[tuple[float, float]]:
    return _points(entries, f'validation/{task}/{name}')

  rows, accuracy = [], points('accuracy')
  for name, baseline in _LOSSES.items():
    found, known = points(name), points(baseline)
    # A sum of losses has no baseline: its parts are shown instead.
    if found and not (name == 'loss' and points('class_loss')):
      rows.append([
          f'{stage}: {task}' + (f', {name.removesuffix("_loss")}'
                                if name != 'loss' else ''),
          f'{found[0][1]:.3f}', f'{known[-1][1]:.3f}' if known else '–',
          f'{found[-1][1]:.3f}',
          f'{100 * accuracy[-1][1]:.1f} %'
          if accuracy and name != 'feature_loss' else '–'])
  return rows


def _points(entries: Sequence[Mapping[str, float]],
            key: str) -> list[tuple[float, float]]:
  return [(entry['step'], entry[key]) for entry in entries if key in entry]
