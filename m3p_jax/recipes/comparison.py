"""Arms of an experiment, compared seed by seed; pure NumPy.

Letters: S seeds.
"""

from collections.abc import Collection, Mapping, Sequence
import math
from typing import Any

import numpy as np
from scipy import stats

from m3p_jax.evaluation import statistics

ARMS = ('off', 'on', 'shuffled')
COMPARISONS = (('on', 'off'), ('shuffled', 'off'), ('on', 'shuffled'))


def group(languages: Sequence[str],
          dictionaries: Collection[str]) -> dict[str, list[str]]:
  """Returns the groups of languages that the table shows, by title.

  Args:
    languages: that were evaluated.
    dictionaries: those among them whose words captions were switched into.
  """
  others = [name for name in languages if name != 'en']
  covered = [name for name in others if name in dictionaries]
  without = [name for name in others if name not in dictionaries]
  groups = {'en': [name for name in languages if name == 'en'],
            f'{len(others)} others': others,
            f'{len(covered)} with a dictionary': covered,
            f'{len(without)} without': without}
  return {title: names for title, names in groups.items() if names}


def interval(differences_S: np.ndarray) -> tuple[float, float]:
  """Returns mean and half-width of Student's 95 % interval.

  Args:
    differences_S: float [S], one paired difference per seed, S ≥ 2.
  """
  n = len(differences_S)
  width = stats.t.ppf(0.975, n - 1) * np.std(differences_S, ddof=1)
  return float(np.mean(differences_S)), float(width / math.sqrt(n))


def table(cells: Mapping[str, Mapping[str, Any]],
          dictionaries: Collection[str], *,
          ranks: Mapping[str, Mapping[str, Mapping[str, statistics.Language]]]
          | None = None) -> str:
  """Returns the table: arms, then paired differences with intervals.

  Args:
    cells: by arm and seed (a string), each with `mean_recall` by language;
      two seeds or more, the same of every arm.
    dictionaries: languages that captions were switched into.
    ranks: {arm: {seed: {language: queries}}}, of the same cells; adds each
      arm's bootstrap interval over pictures, and the p of the paired test over
      pictures, all seeds together. None = without.
  """
  seeds = sorted(cells[ARMS[0]])
  shown = group(list(cells[ARMS[0]][seeds[0]]['mean_recall']), dictionaries)
  values = {
      (arm, title): np.array([
          np.mean([cells[arm][seed]['mean_recall'][name] for name in names])
          for seed in seeds])
      for arm in ARMS for title, names in shown.items()}

  def queries(arm, title):
    return [ranks[arm][seed][name]
            for seed in seeds for name in shown[title]]

  def arm_cell(arm, title):
    told = f'{np.mean(values[arm, title]):.1f}'
    if not ranks:
      return told
    found = statistics.interval(queries(arm, title))
    return f'{told} ({found.low:.1f}–{found.high:.1f})'

  def difference_cell(one, other, title):
    told = '{:+.2f} ± {:.2f}'.format(
        *interval(values[one, title] - values[other, title]))
    if not ranks:
      return told
    _, p = statistics.paired(queries(one, title), queries(other, title))
    return f'{told}, p {p:.2g}'

  lines = ['| code-switching | ' + ' | '.join(shown) + ' |',
           '|---|' + '---:|' * len(shown)]
  for arm in ARMS:
    lines.append(f'| {arm} | ' + ' | '.join(
        arm_cell(arm, title) for title in shown) + ' |')
  for one, other in COMPARISONS:
    lines.append(f'| {one} − {other} | ' + ' | '.join(
        difference_cell(one, other, title) for title in shown) + ' |')
  return '\n'.join(lines)
