"""What a host must read to keep its chips busy, beside what a disk gave."""

from collections.abc import Mapping
import json
from typing import Any

from etils import epath
import ml_collections

from input_pipeline import errors

ConfigDict = ml_collections.ConfigDict
# XLM-R's ids stand for about 4.5 bytes of text each; records of text take up to
# 1.3 times the text.
_BYTES_AN_ID = 6
# Rows of `benchmarks.input_pipeline` by the stream that they measure.
_MEASURED = {'image_text': 'input pipeline, streamed',
             'text': 'input pipeline, sentences'}


def needed(config: ConfigDict, step_seconds: float,
           hosts: int) -> dict[str, Any]:
  """Returns {stream: what a host reads a second, and what a disk gave}.

  Raises:
    UserError: plan.benchmarks names no table of `benchmarks.run`.
  """
  measured = _measured(config.plan.benchmarks)
  found: dict[str, Any] = {}
  for task in config.tasks.values():
    stream = found.setdefault(task.stream, {'rows_per_second': 0.0})
    stream['rows_per_second'] += task.batch_size / step_seconds / hosts
  for name, stream in found.items():
    size = record_bytes(config, name)
    stream |= {'bytes_per_record': size,
               'bytes_per_second': size * stream['rows_per_second'],
               'measured_rows_per_second': measured.get(_MEASURED[name])}
  return found


def record_bytes(config: ConfigDict, stream: str) -> float:
  """Returns the bytes of a row's record: as prepared, else by its shape.

  A row of text that fills its length is as many ids as it has.
  """
  data = config.data[stream]
  ids = data.max_length * _BYTES_AN_ID
  if stream == 'text':
    return ids
  count = size = 0
  for dataset in data.datasets:
    for path in (epath.Path(config.data.data_dir) / dataset).glob(
        '*/dataset_info.json'):
      for split in json.loads(path.read_text()).get('splits', []):
        if split['name'] == 'train':
          size += int(split['numBytes'])
          count += sum(map(int, split['shardLengths']))
  if count:
    return size / count
  # Features in float16, four float32 of a box and its class.
  return ids + config.plan.num_regions * (
      2 * config.model.region_feature_dim + 4 * 4 + 4)


def lines(found: Mapping[str, Any] | None, hosts: int) -> list[str]:
  """Returns the same as lines to read."""
  told = []
  for name, stream in (found or {}).items():
    measured = stream['measured_rows_per_second']
    told.append(
        f'reads of {name:<11}{stream["rows_per_second"]:,.0f} rows/s and '
        f'{stream["bytes_per_second"] / 1e6:,.1f} MB/s on each of {hosts} '
        f'host{"s" if hosts > 1 else ""}; ' + (
            f'{measured:,.0f} rows/s were measured' if measured else
            'no benchmark of this machine is here'))
  return told


def _measured(path: str) -> dict[str, float]:
  """Returns {row of the table: rows a second}; {} where there is none."""
  file = epath.Path(path)
  if not path or not file.exists():
    return {}
  try:
    return {row['name']: row['ours'] for row in json.loads(
        file.read_text())['rows'] if row['unit'] == 'rows/s'}
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
        f'plan.benchmarks={path} is no table.json of benchmarks.run: '
        f'{error}') from error
