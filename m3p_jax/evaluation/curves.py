"""Sections of report.html that show how recall grows with k."""

from collections.abc import Mapping, Sequence
import html
from typing import Any

import numpy as np

from m3p_jax.evaluation import charts
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import sections
from m3p_jax.evaluation import statistics

_KS = (1, 2, 3, 5, 7, 10, 15, 20, 30)
_TITLES = {'text_to_image': 'text → image', 'image_to_text': 'image → text'}


def recall(ranks: Mapping[str, Mapping[str, statistics.Language]]) -> str:
  """Returns R@k by k, a chart a direction, a line a setting.

  Args:
    ranks: {row: {language: queries}}; rows without any are left out.
  """
  ranks = {row: languages for row, languages in ranks.items() if languages}
  if not ranks:
    return ''
  drawn = []
  for direction in protocols.DIRECTIONS:
    drawn.append(charts.lines(
        {row: [(k, 100.0 * float(np.mean([
            (one[direction].rank_Q <= k).mean()
            for one in languages.values()]))) for k in _KS]
         for row, languages in ranks.items()},
        title=_TITLES[direction], x_label='k', y_label='%'))
  return sections.section(
      'Recall at k', 'Share of queries, in per cent, with a right answer among '
      'the first k; mean over the languages that a setting was evaluated in.',
      charts.legend(list(ranks))
      + f'<div class="grid">{"".join(drawn)}</div>')


def two_stage(files: Sequence[Mapping[str, Any]]) -> str:
  """Returns what re-ranking the first k costs and gives.

  Args:
    files: contents of retrieval*.json; the last setting with a curve, of the
      exact engine where there is one, is shown.
  """
  found = [(content['mode'], setting, cell['curve'])
           for content in files
           for setting, cell in content['settings'].items()
           if cell.get('curve')]
  if not found:
    return ''
  mode, setting, curve = max(
      enumerate(found), key=lambda one: (one[1][0] == 'joint', one[0]))[1]
  drawn = [charts.lines(
      {'two stages': [(point['top_k'], point['mean_recall'])
                      for point in curve]},
      title='mean recall by k (0 = dual alone)', x_label='k'),
           charts.lines(
      {'two stages': [(point['pairs_share'], point['mean_recall'])
                      for point in curve]},
      title='mean recall by share of pairs scored', x_label='% of all pairs')]
  head = ['k', 'pairs', '% of all', 'mean recall']
  rows = [[str(point['top_k']), f'{point["pairs"]:,}',
           f'{point["pairs_share"]:.1f}', f'{point["mean_recall"]:.1f}']
          for point in curve]
  text = (f'Setting “{html.escape(setting)}”, mean over languages: the joint '
          'encoder orders the first k candidates of the dual one, in both '
          'directions.')
  if mode == 'joint':
    head += ['same first', 'same first ten']
    for row, point in zip(rows, curve, strict=True):
      row += [f'{point["agreement"][name]:.1f} %'
              for name in ('first', 'first10')]
    text += (' The last row scores every pair: the exact engine. The last two '
             'columns say how often the two stages agree with it.')
  return sections.section(
      'Two stages', text, f'<div class="grid">{"".join(drawn)}</div>'
      + sections.table(head, rows))


def consistency(rows: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns mean rank variance and gap to English, a row a setting.

  Args:
    rows: {row: cell}, see `sections.rows_of`.
  """
  lines = []
  for row, cell in rows.items():
    variance = cell.get('mean_rank_variance') or {}
    gaps = [one['gap_to_english'] for name, one in cell['languages'].items()
            if name != 'en' and 'gap_to_english' in one]
    if variance or gaps:
      lines.append([row, *(
          f'{variance[direction]:.0f}' if direction in variance else '–'
          for direction in protocols.DIRECTIONS),
                    f'{sum(gaps) / len(gaps):+.1f}' if gaps else '–'])
  if not lines:
    return ''
  return sections.section(
      'Across languages', 'Mean rank variance: how far the ranks that one '
      'picture gets in different languages lie apart (0 = alike). Gap: mean '
      'recall in English minus the mean of the others, in points.',
      sections.table(['setting', *(
          f'variance, {_TITLES[direction]}'
          for direction in protocols.DIRECTIONS), 'gap to English'], lines))
