"""The section of report.html with every metric of every language."""

from collections.abc import Mapping, Sequence
import html
from typing import Any

from input_pipeline import languages as language_names
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import sections

# Title, key of a direction's metrics, and digits after the point.
_METRICS = (
    ('R@1', 'r1', 1), ('R@5', 'r5', 1), ('R@10', 'r10', 1),
    ('median rank', 'median_rank', 1), ('mean rank', 'mean_rank', 1),
    ('MRR', 'mrr', 3), ('nDCG@10', 'ndcg10', 3))
_TITLES = {'text_to_image': 'Text → image', 'image_to_text': 'Image → text'}


def section(files: Sequence[Mapping[str, Any]]) -> str:
  """Returns all that was measured, a foldable part a setting.

  Args:
    files: contents of the retrieval*.json of one test set; the last setting of
      the first is printed on paper too.
  """
  rows = sections.rows_of(files)
  last = list(files[0]['settings'])[-1]
  parts = [
      f'<details{" class=printed" if row == last else ""}><summary>'
      f'{html.escape(row)}</summary>{_tables(cell["languages"])}</details>'
      for row, cell in rows.items()]
  return sections.section(
      'Every metric', 'Recalls in per cent; ranks count from 1, and the best '
      'right answer’s is meant; nDCG@10 counts every right answer. Interval: '
      '95 %, bootstrap over pictures with all that belongs to them. Gap: mean '
      'recall in English minus that of the language, in points.',
      ''.join(parts))


def _tables(languages: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns three tables: mean recall, and the metrics of each direction."""
  names = {code: f'{language_names.name(code)} ({code})' for code in languages}
  parts = [sections.table(
      ['language', 'mean recall', '95 % interval', 'chance', 'gap to English'],
      [[names[code], f'{one["mean_recall"]:.1f}', _interval(one),
        f'{one["chance"]:.1f}', _number(one, 'gap_to_english', 1, sign='+')]
       for code, one in languages.items()])]
  for direction in protocols.DIRECTIONS:
    parts.append(f'<h3>{_TITLES[direction]}</h3>' + sections.table(
        ['language', 'queries', *(title for title, *_ in _METRICS)],
        [[names[code], _number(one[direction], 'num_queries', 0),
          *(_number(one[direction], key, digits)
            for _, key, digits in _METRICS)]
         for code, one in languages.items()]))
  return ''.join(parts)


def _interval(cell: Mapping[str, Any]) -> str:
  """Returns a language's interval; '–' where it was written without."""
  if 'interval' not in cell:
    return '–'
  low, high = cell['interval']
  return f'{low:.1f}–{high:.1f}'


def _number(cell: Mapping[str, Any], key: str, digits: int, *,
            sign: str = '') -> str:
  return f'{cell[key]:{sign},.{digits}f}' if key in cell else '–'
