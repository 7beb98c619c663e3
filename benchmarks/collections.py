"""What a collection does over its life, measured: one table, a row a size.

python -m benchmarks.collections --workdir=DIR [--sizes=10100,101000]
                                 [--vectors=1000000]

For each of --sizes that many pictures are made from a seed (waves of colour
with noise, JPEG of 640 by 480 pixels, 40 kB) and indexed as `make photos` does,
with the weights in weights/photos: from nothing, with 100 more, with 50 fewer,
with 50 renamed, and once killed half way and begun again. --vectors measures an
exported index of that many random vectors: loading, a query, memory and disk.
10,100 pictures take minutes and 1 GB, 101,000 an hour and 10 GB.
"""

from collections.abc import Callable, Sequence
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from absl import app
from absl import flags
import numpy as np
from PIL import Image

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import search
from m3p_jax.recipes import photos
from m3p_jax.search import exported
from m3p_jax.search import index as index_lib

ROOT = pathlib.Path(__file__).parent.parent
_COLUMNS = ('pictures', 'from nothing', 'the same again', 'add 100',
            'remove 50', 'rename 50', 'killed half way, rest', 'load',
            'query', 'memory', 'disk')
# Loads an index and asks it, in a process of its own: a line of JSON.
_ASK = '''
import json, resource, sys, time
from m3p_jax import search
start = time.monotonic()
searcher = search.load(sys.argv[1])
searcher.search('a first query')
load, seconds = time.monotonic() - start, []
for number in range(40):
  start = time.monotonic()
  searcher.search(f'query number {number}')
  seconds.append(time.monotonic() - start)
print(json.dumps([load, sorted(seconds)[20], resource.getrusage(
    resource.RUSAGE_SELF).ru_maxrss / 2**20]))
'''


def draw(path: pathlib.Path, seed: int) -> None:
  """Writes the picture of a seed."""
  rng = np.random.default_rng(seed)
  y_H11 = np.linspace(0, 1, 240, dtype=np.float32)[:, None, None]
  x_1W1 = np.linspace(0, 1, 320, dtype=np.float32)[None, :, None]
  pixels_HW3 = rng.normal(110, 6, (240, 320, 3)).astype(np.float32)
  for _ in range(4):
    x_3, y_3, start_3 = rng.uniform(-20, 20, (3, 3)).astype(np.float32)
    pixels_HW3 += 40 * np.sin(x_3 * x_1W1 + y_3 * y_H11 + start_3)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8)).resize(
      (640, 480)).save(path, quality=80)


def measure(size: int, workdir: pathlib.Path) -> list[str]:
  """Returns the cells of a collection of pictures."""
  folder = workdir / 'pictures'
  for number in range(size):
    draw(_path(folder, number), number)
  cells = [f'{size:,}', _time(lambda: _index(folder, workdir)),
           _time(lambda: _index(folder, workdir))]
  for number in range(size, size + 100):
    draw(_path(folder, number), number)
  cells.append(_time(lambda: _index(folder, workdir)))
  for number in range(50):
    _path(folder, number).unlink()
  cells.append(_time(lambda: _index(folder, workdir)))
  for number in range(50, 100):
    path = _path(folder, number)
    path.rename(path.with_name(f'renamed {number}.jpg'))
  cells.append(_time(lambda: _index(folder, workdir)))
  cells += _ask(workdir / 'run')
  cells.append(_disk(workdir / 'run'))
  cells.insert(6, _killed(folder, workdir))
  return cells


def _path(folder: pathlib.Path, number: int) -> pathlib.Path:
  return folder / f'{number // 1000:04}' / f'IMG_{number:07}.jpg'


def _command(folder: pathlib.Path, workdir: pathlib.Path,
             name: str) -> list[str]:
  return [sys.executable, '-m', 'm3p_jax.recipes.photos',
          f'--pictures={folder}', f'--workdir={workdir / name}',
          f'--data_dir={workdir / "data"}']


def _index(folder: pathlib.Path, workdir: pathlib.Path,
           name: str = 'run') -> None:
  subprocess.run(_command(folder, workdir, name), cwd=ROOT, check=True,
                 stdout=subprocess.DEVNULL)


def _killed(folder: pathlib.Path, workdir: pathlib.Path) -> str:
  """Returns how long the rest takes after a kill with half of the shards."""
  with subprocess.Popen(_command(folder, workdir, 'killed'), cwd=ROOT,
                        stdout=subprocess.DEVNULL) as process:
    wanted = sum(1 for _ in folder.rglob('*.jpg')) // 256 // 2
    while process.poll() is None and sum(1 for _ in (
        workdir / 'killed').rglob('*.npz')) < wanted:
      time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
  return _time(lambda: _index(folder, workdir, 'killed'))


def measure_vectors(count: int, workdir: pathlib.Path) -> list[str]:
  """Returns the cells of an exported index of random vectors."""
  folder = workdir / 'one'
  draw(folder / 'one.jpg', 0)
  _index(folder, workdir)
  searcher = search.load(workdir / 'run')
  manifest = exported.export(searcher, workdir / 'index')
  dim = manifest['embedding_dim']
  vectors_IE = np.lib.format.open_memmap(
      workdir / 'index' / index_lib.VECTORS, 'w+', np.float32, (count, dim))
  rng = np.random.default_rng(0)
  for part in np.split(np.arange(count), range(10_000, count, 10_000)):
    rows_IE = rng.normal(size=(len(part), dim)).astype(np.float32)
    vectors_IE[part] = rows_IE / np.linalg.norm(rows_IE, axis=1, keepdims=True)
  vectors_IE.flush()
  del vectors_IE
  index_lib.finish(workdir / 'index', ({
      'image_id': f'{number // 1000}/IMG_{number}.jpg', 'picture': '',
      'original': '', 'captions': {'en': ['a picture']},
      'content': f'{number:064x}'} for number in range(count)), {
          key: value for key, value in manifest.items()
          if key not in ('num_pictures', 'sha256')})
  return [f'{count:,} vectors', *6 * ['–'], *_ask(workdir / 'index'),
          _disk(workdir / 'index')]


def _ask(path: pathlib.Path) -> list[str]:
  done = subprocess.run([sys.executable, '-c', _ASK, path], cwd=ROOT, text=True,
                        stdout=subprocess.PIPE, check=True)
  load, query, memory = json.loads(done.stdout.splitlines()[-1])
  return [f'{load:.1f} s', f'{1000 * query:.0f} ms', f'{memory:.2f} GiB']


def _time(work: Callable[[], None]) -> str:
  start = time.monotonic()
  work()
  return f'{time.monotonic() - start:.0f} s'


def _disk(folder: pathlib.Path) -> str:
  size = sum(os.lstat(os.path.join(here, name)).st_size
             for here, _, names in os.walk(folder) for name in names)
  return f'{size / 2**20:,.0f} MiB'


def main(argv: Sequence[str]) -> None:
  """Prints the table, each row when it is done."""
  console.check_flags(argv, ())
  values = flags.FLAGS
  if not photos.SHIPPED.is_dir():
    raise errors.UserError(f'{photos.SHIPPED} is not there')
  workdir = pathlib.Path(values.workdir).absolute()
  if workdir.exists():  # It will be deleted.
    raise errors.UserError(f'--workdir={workdir} exists; allowed: a new folder')
  print(f'| {" | ".join(_COLUMNS)} |\n|{"---:|" * len(_COLUMNS)}')
  for size, make in itertools.chain(
      ((int(one), measure) for one in values.sizes),
      ((int(one), measure_vectors) for one in values.vectors)):
    print(f'| {" | ".join(make(size, workdir))} |', flush=True)
    shutil.rmtree(workdir)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/collections', 'Folder that is filled, '
                      'and deleted after each row.')
  flags.DEFINE_list('sizes', [], 'Numbers of pictures, as 10100,101000.')
  flags.DEFINE_list('vectors', [], 'Numbers of vectors, as 1000000.')
  app.run(console.one_line(main))
