"""Our input pipeline against a torch DataLoader over the same features.

The DataLoader reads VOLTA's layout: one h5 group a picture, uncompressed
float32 features, in shuffled order, with two workers.
"""

from collections.abc import Sequence
import pathlib
import tempfile

import ml_collections

from benchmarks import contest
from benchmarks import input_pipeline as records_benchmark
from benchmarks import report
from configs import base
from input_pipeline import pipeline

_PICTURES = 512
_BATCH_SIZE = 64
_BATCHES = 16
# Batches that either side may have made while it rested; not counted.
_MADE_AHEAD = 10
_ROUNDS = 7


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns two rows, whatever the sizes: 100 regions of 2,048 numbers."""
  del sizes
  with tempfile.TemporaryDirectory() as folder:
    records_benchmark.make_data(
        pathlib.Path(folder), _PICTURES, _PICTURES, 'float16')
    with (contest.Process('benchmarks.data_loading:ours',
                          folder=folder) as ours,
          contest.Process('benchmarks.against_pytorch.loading:variants',
                          folder=folder, pictures=_PICTURES,
                          batch_size=_BATCH_SIZE, batches=_BATCHES,
                          made_ahead=_MADE_AHEAD) as other):
      (loader,) = other.names
      timings = contest.take_turns(
          {name: (ours, name) for name in ours.names}
          | {loader: (other, loader)}, rounds=_ROUNDS)
  seconds = {name: [timing.seconds for timing in found]
             for name, found in timings.items()}
  return [report.rate(
      f'input pipeline, {name}', loader,
      contest.compare(seconds[name], seconds[loader]),
      count=_BATCHES * _BATCH_SIZE, unit='rows/s', wanted=5.0)
          for name in ours.names]


def ours(folder: str) -> dict[str, contest.Run]:
  """Returns the pipeline from memory, and streamed from the records."""

  def make(memory_bytes: int | None) -> contest.Run:
    data = base.get_config().data
    data.data_dir = folder
    data.image_text.datasets = ('pictures',)
    if memory_bytes is not None:
      data.image_text.memory_bytes = memory_bytes
    tasks = ml_collections.ConfigDict(
        {'task': base.task_config('masked_lm', 'image_text', _BATCH_SIZE)})
    iterator = iter(pipeline.build(data, tasks, seed=0))
    return lambda: contest.timed(iterator, _BATCHES, _MADE_AHEAD)

  return {'in memory': make(None), 'streamed': make(0)}
