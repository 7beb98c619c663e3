"""All benchmarks, one table: `make bench`.

python -m benchmarks.run [--only=training_step,…] [--size=small] [--out=DIR]

The table is written anew after each benchmark, to DIR/table.md and
DIR/table.json. `plan_table` makes the table of plans, which takes hours, and
`on_accelerator` measures a TPU or GPU.
"""

from collections.abc import Sequence
import pathlib
import sys
import time

from absl import flags

from benchmarks import contests
from benchmarks import input_pipeline as input_pipeline_benchmark
from benchmarks import report
from input_pipeline import console
from input_pipeline import errors

BENCHMARKS = {
    'training_step': contests.training_step,
    'exact_scoring': contests.exact_scoring,
    'input_pipeline': input_pipeline_benchmark.measure,
    'peak_memory': contests.peak_memory}
SIZES = ('small', 'base')


def main(argv: Sequence[str]) -> None:
  """Runs the benchmarks asked for and prints the table."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  args = flags.FLAGS
  for name in args.only:
    errors.check_choice('benchmark in --only', name, BENCHMARKS)
  for name in args.size:
    errors.check_choice('--size', name, SIZES)
  out = pathlib.Path(args.out)
  rows: list[report.Row] = []
  machine, start = report.machine(), time.monotonic()
  for name in args.only:
    print(f'{name} (after {(time.monotonic() - start) / 60:.1f} minutes)',
          file=sys.stderr, flush=True)
    rows += BENCHMARKS[name](args.size)
    report.write(rows, machine, out)
  print((out / 'table.md').read_text())


if __name__ == '__main__':
  flags.DEFINE_list('only', list(BENCHMARKS), 'Benchmarks to run.')
  flags.DEFINE_list('size', list(SIZES), 'Sizes to measure.')
  flags.DEFINE_string('out', 'runs/bench', 'Folder of the table.')
  console.run_main(main)
