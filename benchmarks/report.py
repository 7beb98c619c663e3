"""What benchmarks give back, and the table made of it."""

from collections.abc import Sequence
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
from typing import Any, NamedTuple

from benchmarks import contest

_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'tensorflow-cpu', 'torch',
             'transformers', 'h5py')


class Row(NamedTuple):
  """One line of the table.

  Attributes:
    name: what was measured.
    other: what ours is compared with.
    ratio: how many times better ours is.
    unit: of the two values: 'rows/s', 's', 'GB'.
    ours: in this unit.
    theirs: in this unit.
    wanted: least ratio, None = told for information.
    note: what must be known to read it.
  """
  name: str
  other: str
  ratio: contest.Ratio
  unit: str
  ours: float
  theirs: float
  wanted: float | None = None
  note: str = ''


def rate(name: str, other: str, ratio: contest.Ratio, *, count: float,
         unit: str, wanted: float | None = None, note: str = '') -> Row:
  """Returns the row of things done a second.

  Args:
    name: see `Row`, as the others.
    other: see `Row`.
    ratio: of seconds a run.
    count: things done in one run.
    unit: of things a second.
    wanted: see `Row`.
    note: see `Row`.
  """
  return Row(name, other, ratio, unit, count / ratio.ours,
             count / ratio.other, wanted, note)


def single(ours: float, theirs: float) -> contest.Ratio:
  """Returns the ratio of two numbers of which smaller is better."""
  return contest.Ratio(theirs / ours, theirs / ours, theirs / ours, ours,
                       theirs, 1)


def machine() -> dict[str, Any]:
  """Returns what the numbers were measured on, and with."""
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return {
      'date': datetime.date.today().isoformat(), 'commit': _commit(),
      'processor': _processor(), 'cores': len(os.sched_getaffinity(0)),
      'memory_gb': round(os.sysconf('SC_PAGE_SIZE')
                         * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
      'load_before': round(os.getloadavg()[0], 2),
      'python': platform.python_version(), 'versions': versions}


def markdown(rows: Sequence[Row], found: dict[str, Any]) -> str:
  """Returns the table, and below it what it was measured on."""
  lines = ['| measured | ours | compared with | theirs | ratio | quartiles | '
           'wanted |', '|---|---|---|---|---|---|---|']
  for row in rows:
    wanted = '' if row.wanted is None else (
        f'≥ {row.wanted:g} {"✓" if row.ratio.value >= row.wanted else "✗"}')
    ratio, runs = row.ratio, row.ratio.runs
    spread = ('' if runs == 1 or math.isnan(ratio.value) else
              f'{ratio.low:.2f}–{ratio.high:.2f}')
    lines.append(
        f'| {row.name} | {_number(row.ours)} {row.unit} | {row.other} | '
        f'{_number(row.theirs)} {row.unit} | {_number(ratio.value, ".2f")} | '
        f'{spread} | {wanted} |')
  # A note of several sizes and parts is said once.
  notes = [f'- {row.name.partition(",")[0]}: {row.note}'
           for row in rows if row.note]
  versions = ', '.join(f'{k} {v}' for k, v in found['versions'].items())
  return '\n'.join([
      *lines, '', *dict.fromkeys(notes), '',
      f'{found["processor"]}, {found["cores"]} cores, '
      f'{found["memory_gb"]} GB; Python {found["python"]}, {versions}; commit '
      f'{found["commit"]}, {found["date"]}. Load before: '
      f'{found["load_before"]}.', ''])


def write(rows: Sequence[Row], found: dict[str, Any],
          folder: pathlib.Path) -> None:
  """Writes table.md and table.json, each whole or not at all.

  Args:
    rows: of the table.
    found: the `machine`, looked at before anything was measured.
    folder: where to; made if it is not there.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in (
      ('table.md', markdown(rows, found)),
      ('table.json', json.dumps({
          'machine': found, 'rows': [
              row._replace(ratio=row.ratio._asdict())._asdict()
              for row in rows]}, indent=1, ensure_ascii=False))):
    draft = folder / f'.{name}'
    draft.write_text(text)
    draft.replace(folder / name)


def _number(value: float, form: str = '') -> str:
  if math.isnan(value):
    return '–'
  return f'{value:{form or (",.0f" if value >= 100 else ".3g")}}'


def _commit() -> str:
  result = subprocess.run(
      ['git', 'describe', '--always', '--dirty'], text=True,
      cwd=pathlib.Path(__file__).parent, capture_output=True, check=False)
  return result.stdout.strip() or 'unknown'


def _processor() -> str:
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()
