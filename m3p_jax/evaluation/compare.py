"""Compares two runs' retrieval: differences, intervals and a paired test.

python -m m3p_jax.evaluation.compare A/retrieval.json:all B/retrieval.json:en
    [--languages=en,de] [--seed=0]

A setting is named after the file; without one, the file's last is taken. Both
must have answered the same queries. See `statistics.paired` for the test.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import paths
from m3p_jax.evaluation import results
from m3p_jax.evaluation import statistics


class Run(NamedTuple):
  """One setting of a file of results."""
  name: str  # As the user gave it.
  header: dict[str, str]
  languages: Mapping[str, Mapping[str, Any]]
  queries: Mapping[str, statistics.Language]


class Row(NamedTuple):
  """One line: the languages' names, both mean recalls, the difference."""
  title: str
  one: float
  other: float
  difference: statistics.Interval
  p: float


def load(name: str) -> Run:
  """Returns the run of 'FILE' or 'FILE:SETTING'.

  Raises:
    UserError: no such file or setting, or its ranks are not there.
  """
  file, _, setting = name.partition(':')
  path = paths.of(file)
  content = results.read(path)
  if not content.get('settings'):
    raise errors.UserError(f'{path}: no results; evaluate first (python '
                           'main.py --mode=evaluate --workdir=DIR)')
  setting = setting or list(content['settings'])[-1]
  errors.check_choice(f'setting of {path}', setting, content['settings'])
  queries = results.load_ranks(path, setting)
  if not queries:
    raise errors.UserError(
        f'{results.ranks_path(path, setting)}: not there; evaluate setting '
        f'{setting!r} again, and it is written')
  return Run(name, {key: content[key] for key in results.HEADER},
             content['settings'][setting]['languages'], queries)


def compare(one: Run, other: Run, languages: Sequence[str] = (), *,
            seed: int = 0) -> list[Row]:
  """Returns a row for each language, and for their mean where several.

  No languages = all that both runs have.

  Raises:
    UserError: the runs answered other queries, or a language is missing.
  """
  if one.header != other.header:
    raise errors.UserError(
        f'{one.name} is of {one.header}, {other.name} of {other.header}: only '
        'runs on the same protocol, dataset and split can be compared')
  both = [name for name in one.queries if name in other.queries]
  for name in languages:
    errors.check_choice('language of both runs', name, both)
  languages = list(languages or both)
  if not languages:
    raise errors.UserError(
        f'{one.name} and {other.name} have no language in common')
  for name in languages:
    if (one.languages[name].get('queries')
        != other.languages[name].get('queries')):
      raise errors.UserError(
          f'{name}: {one.name} and {other.name} were asked other captions or '
          'pictures; evaluate both on the same prepared data')
  groups = [[name] for name in languages]
  if len(languages) > 1:
    groups.append(languages)
  return [_row(one, other, names, seed) for names in groups]


def _row(one: Run, other: Run, names: Sequence[str], seed: int) -> Row:
  left, right = ([run.queries[name] for name in names]
                 for run in (one, other))
  difference, p = statistics.paired(left, right, seed=seed)
  title = names[0] if len(names) == 1 else f'mean of {len(names)}'
  return Row(title, statistics.mean_recall(left),
             statistics.mean_recall(right), difference, p)


def table(rows: Sequence[Row]) -> str:
  """Returns the rows in Markdown."""
  lines = ['| language | A | B | A − B | 95 % interval | p |',
           '|---|---:|---:|---:|---:|---:|']
  for row in rows:
    p = f'{row.p:.4f}' if row.p >= 1e-4 else '< 0.0001'
    lines.append(
        f'| {row.title} | {row.one:.1f} | {row.other:.1f} | '
        f'{row.difference.value:+.2f} | {row.difference.low:+.2f} to '
        f'{row.difference.high:+.2f} | {p} |')
  return '\n'.join(lines)


def _main() -> None:
  languages = flags.DEFINE_list(
      'languages', [], 'Languages to compare; empty = all that both have.')
  seed = flags.DEFINE_integer('seed', 0, 'Of the draws.')

  def main(argv):
    if len(argv) != 3:
      raise errors.UserError(
          f'two files are compared, each FILE or FILE:SETTING; given: '
          f'{len(argv) - 1}')
    one, other = map(load, argv[1:])
    rows = compare(one, other, languages.value, seed=seed.value)
    print(f'Mean recall in per cent, {one.header["dataset"]} '
          f'({one.header["split"]}), protocol {one.header["protocol"]}\n'
          f'A: {one.name}\nB: {other.name}\n\n{table(rows)}\n\nIntervals: '
          'paired bootstrap over pictures with their captions; p: two-sided '
          'permutation test that swaps the runs in each.')

  console.run_main(main)


if __name__ == '__main__':
  _main()
