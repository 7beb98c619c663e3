"""Where a number comes from: command, machine, commit, date, versions."""

import datetime
from importlib import metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax


def collect() -> dict[str, Any]:
  """Returns the facts of this run, as JSON holds them."""
  return {
      'command': ' '.join(['python', *sys.orig_argv[1:]]),
      'machine': machine(),
      'commit': commit(),
      'date': datetime.date.today().isoformat(),
      'versions': {name: metadata.version(name)
                   for name in ('jax', 'flax', 'optax')},
  }


def machine() -> str:
  """Returns processor, cores, memory and accelerator in words."""
  cores = (len(os.sched_getaffinity(0))
           if hasattr(os, 'sched_getaffinity') else os.cpu_count())
  parts = [_processor(), f'{cores} cores']
  if hasattr(os, 'sysconf') and 'SC_PHYS_PAGES' in os.sysconf_names:
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    parts.append(f'{memory / 2 ** 30:.0f} GiB memory')
  device = jax.devices()[0]
  if device.platform != 'cpu':
    parts.append(f'{jax.device_count()} × {device.device_kind}')
  return ', '.join(parts)


def _processor() -> str:
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    for line in info.read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor() or platform.machine()


def commit() -> str:
  """Returns the checkout's commit, `-dirty` where files differ from it."""
  try:
    git = subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--exclude=*'],
        cwd=pathlib.Path(__file__).parent, capture_output=True, text=True,
        check=False)
  except FileNotFoundError:
    return 'unknown'
  return git.stdout.strip() or 'unknown'
