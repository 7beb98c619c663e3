"""What a host must read to keep its chips busy, beside what a disk gave."""

from collections.abc import Mapping
import json
from typing import Any

import ml_collections

from input_pipeline import errors
from input_pipeline import paths
from input_pipeline import streams

ConfigDict = ml_collections.ConfigDict
# XLM-R's ids stand for about 4.5 bytes of text each; records take 0.6 of the
# text (udhr 0.44, Multi30K's captions 0.58).
_BYTES_AN_ID = 3
# Rows of `benchmarks.input_pipeline` by the stream that they measure.
_MEASURED = {'text': 'input pipeline, text'}
_STREAMED = 'input pipeline, streamed'


def needed(config: ConfigDict, step_seconds: float,
           hosts: int) -> dict[str, dict[str, Any]]:
  """Returns {stream: what a host reads a second, and what a disk gave}.

  Raises:
    UserError: plan.benchmarks names no table of `benchmarks.run`.
  """
  path, measured = config.plan.benchmarks, {}
  if path and paths.of(path).exists():
    try:
      measured = {row['name']: row['ours'] for row in json.loads(
          paths.of(path).read_text())['rows']}
    except (ValueError, KeyError, TypeError) as error:
      raise errors.UserError(f'plan.benchmarks={path} is no table.json of '
                             f'benchmarks.run: {error}') from error
  found = {}
  for name in sorted({streams.key(task) for task in config.tasks.values()}):
    tasks = [task for task in config.tasks.values()
             if streams.key(task) == name]
    # Shared rows are read once.
    read = sum(task.batch_size for task in tasks if task.rows != 'shared')
    read += max((task.batch_size for task in tasks if task.rows == 'shared'),
                default=0)
    rows = read / step_seconds / hosts
    size = record_bytes(config, tasks[0])
    found[name] = {
        'rows_per_second': rows, 'bytes_per_record': size,
        'bytes_per_second': size * rows,
        'measured_rows_per_second': measured.get(
            _MEASURED.get(tasks[0].stream, _STREAMED))}
  return found


def record_bytes(config: ConfigDict, task: Any) -> float:
  """Returns the bytes of a row's record: as prepared, else by its shape."""
  data = streams.data_of(config.data, task)
  ids = data.max_length * _BYTES_AN_ID
  if task.stream == 'text':
    # Filled to its length, a row is as many ids and no one record.
    return ids
  splits = [split for dataset in data.datasets for path in (
      paths.of(config.data.data_dir) / dataset).glob('*/*/dataset_info.json')
            for split in json.loads(path.read_text())['splits']]
  count = sum(int(n) for split in splits for n in split['shardLengths'])
  if count:
    return sum(int(split['numBytes']) for split in splits) / count
  # Features in float16, a box in four float32, and its class.
  return ids + streams.num_pictures(task) * config.plan.num_regions * (
      2 * config.model.region_feature_dim + 4 * 4 + 4)


def lines(found: Mapping[str, Mapping[str, Any]], hosts: int) -> list[str]:
  """Returns the same as lines to read."""
  told = []
  for name, stream in found.items():
    measured = stream['measured_rows_per_second']
    told.append(
        f'reads of {name:<11}{stream["rows_per_second"]:,.0f} rows/s, '
        f'{stream["bytes_per_second"] / 1e6:,.1f} MB/s on each of {hosts} '
        f'host(s); ' + (f'measured: {measured:,.0f} rows/s' if measured
                        else 'nothing was measured'))
  return told
