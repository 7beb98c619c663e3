"""Where a number comes from: command, machine, commit, versions, inputs."""

import dataclasses
import datetime
import hashlib
from importlib import metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline import evaluation_set
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config


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


def checksum(retrieval_set: evaluation_set.RetrievalSet, language: str) -> str:
  """Returns 16 hexadecimal digits of the pictures and a language's captions."""
  captions = retrieval_set.captions[language]
  content = [*retrieval_set.image_ids, '', *captions.texts]
  digest = hashlib.sha256('\n'.join(content).encode())
  digest.update(captions.token_ids_NL.tobytes())
  return digest.hexdigest()[:16]


def of_scores(c: ml_collections.ConfigDict, weights: weights_lib.Weights,
              retrieval_set: evaluation_set.RetrievalSet) -> dict[str, Any]:
  """Returns what the joint encoder's scores depend on, as JSON.

  `c` is `config.evaluation`.
  """
  digest = hashlib.sha256()
  for path, leaf in jax.tree.leaves_with_path(weights.params):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  regions = hashlib.sha256()
  for array in retrieval_set.regions:
    regions.update(np.asarray(array).tobytes())
  return {
      'dataset': c.dataset, 'split': c.split, 'protocol': c.protocol,
      'weights': digest.hexdigest()[:16],
      'model': dataclasses.asdict(weights.config),
      'dtype': model_config.number_format(weights.dtype),
      'regions': regions.hexdigest()[:16],
      'queries': {name: checksum(retrieval_set, name)
                  for name in retrieval_set.captions}}
