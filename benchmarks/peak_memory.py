"""The most memory that a process holds which trains, or scores."""

from collections.abc import Sequence

from benchmarks import contest
from benchmarks import report
from m3p_jax.model import config as model_config

_STEPS = 2


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows of these sizes, one process at a time."""
  rows, fast = [], model_config.fast_dtype('cpu')
  for size in sizes:
    ours = _peak('benchmarks.ours:training', size=size)
    for variant in dict.fromkeys(('eager float32', f'eager {fast}')):
      other = _peak('benchmarks.against_pytorch.training:variants', size=size,
                    names=(variant,))
      rows.append(report.Row(
          f'peak memory of training, {size}', f'PyTorch, {variant}',
          report.single(ours, other), 'GB', ours / 1e9, other / 1e9,
          wanted=1.0 if size == 'base' else None))
    ours = _peak('benchmarks.ours:scoring', size=size)
    other = _peak('benchmarks.against_pytorch.scoring:variants', size=size)
    rows.append(report.Row(
        f'peak memory of scoring, {size}', f'PyTorch, eager {fast}',
        report.single(ours, other), 'GB', ours / 1e9, other / 1e9))
  return rows


def _peak(factory: str, **arguments) -> float:
  with contest.Process(factory, **arguments) as process:
    for _ in range(_STEPS):
      process.run(process.names[0])
    return float(process.peak_bytes())
