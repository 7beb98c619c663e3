"""What preparation takes: peak memory, pictures a second, bytes a picture.

python -m benchmarks.preparation [--pictures=200 --features=grid]

Prepares N and ten times as many made-up pictures, each in a process of its
own, and compares: memory should not grow with the number of pictures.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags
import numpy as np
from PIL import Image

from input_pipeline import errors
from input_pipeline import records
from input_pipeline import regions

_SIDE = 160


def _make_pictures(folder: pathlib.Path, count: int) -> None:
  """Writes pictures of coloured noise with two captions each."""
  folder.mkdir()
  random_state = np.random.default_rng(0)
  with open(folder / 'captions.jsonl', 'w') as file:
    for i in range(count):
      small = random_state.integers(0, 256, (8, 8, 3), np.uint8)
      Image.fromarray(small).resize((_SIDE, _SIDE)).save(folder / f'{i}.jpg')
      file.write(json.dumps({
          'image': f'{i}.jpg', 'split': 'train', 'captions': {
              'en': [f'noise number {i}'], 'de': [f'Rauschen {i}']}}) + '\n')


def _prepare(folder: pathlib.Path, count: int, features: str,
             storage: str) -> dict[str, Any]:
  """Returns what preparing `count` pictures took."""
  raw_dir, data_dir = folder / f'raw{count}', folder / f'data{count}'
  _make_pictures(raw_dir, count)
  start = time.perf_counter()
  child = subprocess.Popen([
      sys.executable, '-m', 'input_pipeline.prepare', '--dataset=captions',
      f'--raw_dir={raw_dir}', f'--data_dir={data_dir}',
      f'--features={features}', f'--storage={storage}'],
                           stdout=subprocess.DEVNULL)
  _, status, usage = os.wait4(child.pid, 0)
  seconds = time.perf_counter() - start
  if status:
    raise errors.UserError(f'preparation of {count} pictures failed')
  manifest = json.loads((data_dir / 'captions' / 'manifest.json').read_text())
  extractor = manifest['feature_extractor']
  raw = 2 * extractor['num_regions'] * extractor['feature_dim']
  return {
      'pictures': count, 'seconds': round(seconds, 1),
      'seconds of all cores': round(usage.ru_utime + usage.ru_stime, 1),
      'peak memory, MB': round(usage.ru_maxrss / 1000),
      'bytes a picture': manifest['bytes_per_image'],
      'bytes / raw float16': round(manifest['bytes_per_image'] / raw, 3)}


def main(argv: Sequence[str]) -> None:
  """Prints the measurements as JSON."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  args = flags.FLAGS
  with tempfile.TemporaryDirectory() as name:
    found = [_prepare(pathlib.Path(name), count, args.features, args.storage)
             for count in (args.pictures, 10 * args.pictures)]
  memory = [run['peak memory, MB'] for run in found]
  print(json.dumps({
      'runs': found, 'growth of memory': round(memory[1] / memory[0] - 1, 3)},
                   indent=2))


if __name__ == '__main__':
  flags.DEFINE_integer('pictures', 200, 'N.', lower_bound=1)
  flags.DEFINE_enum('features', 'grid', regions.EXTRACTORS, 'See prepare.')
  flags.DEFINE_enum('storage', 'float16', records.STORAGE, 'See prepare.')
  errors.run_main(main)
