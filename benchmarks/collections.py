"""What a collection does over its life, measured: a table a size.

python -m benchmarks.collections --workdir=DIR [--sizes=10100 --photos=FOLDER]
                                 [--vectors=101000,1000000]

Each of --sizes is a collection of that many pictures, indexed as `make photos`
does: from nothing and killed twice on the way, with 100 more, with 50 fewer,
with 50 renamed; then loaded, searched and served. The pictures are those of
--photos, then mirrored and cropped ones of them, as many as it takes; without
it they are drawn from a seed. --vectors measures exported indices of random
vectors alone: what is searched of so many pictures, but none of them read.

The weights are those in weights/photos, with a match head that nobody trained:
it takes the time of one that somebody did.
"""

from collections.abc import Callable, Sequence
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

from absl import app
from absl import flags
import numpy as np
from PIL import Image
from PIL import ImageOps

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import search
from m3p_jax.evaluation import provenance
from m3p_jax.recipes import photos
from m3p_jax.search import exported
from m3p_jax.search import index as index_lib

ROOT = pathlib.Path(__file__).parent.parent
_CLIENTS, _SECONDS = (1, 10, 50), 10
# Loads an index and asks it, in a process of its own: a line of JSON.
_ASK = r'''
import json, re, sys, time
from m3p_jax import search
start = time.monotonic()
searcher = search.load(sys.argv[1])
searcher.search('a first query')
load, seconds = time.monotonic() - start, []
for number in range(40):
  start = time.monotonic()
  searcher.search(f'query number {number}')
  seconds.append(time.monotonic() - start)
# Not ru_maxrss, which is the parent's where that is more.
peak = re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1]
print(json.dumps([load, sorted(seconds)[20], int(peak) / 2**20]))
'''


def draw(path: pathlib.Path, seed: int) -> None:
  """Writes the picture of a seed: waves of colour with noise, 40 kB."""
  rng = np.random.default_rng(seed)
  y_H11 = np.linspace(0, 1, 240, dtype=np.float32)[:, None, None]
  x_1W1 = np.linspace(0, 1, 320, dtype=np.float32)[None, :, None]
  pixels_HW3 = rng.normal(110, 6, (240, 320, 3)).astype(np.float32)
  for _ in range(4):
    x_3, y_3, start_3 = rng.uniform(-20, 20, (3, 3)).astype(np.float32)
    pixels_HW3 += 40 * np.sin(x_3 * x_1W1 + y_3 * y_H11 + start_3)
  Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8)).resize(
      (640, 480)).save(path, quality=80)


def vary(path: pathlib.Path, number: int,
         photographs: Sequence[pathlib.Path]) -> None:
  """Writes a photograph; those after the last are mirrored, then cropped."""
  turn, number = divmod(number, len(photographs))
  if not turn:
    shutil.copyfile(photographs[number], path)
    return
  with Image.open(photographs[number]) as image:
    if turn % 2:
      image = ImageOps.mirror(image)
    border = min(image.size) * (turn // 2) // 20
    ImageOps.crop(image, border).save(path, quality=90)


class _Table:
  """Rows that are printed when they are measured."""

  def __init__(self, title: str):
    print(f'\n| {title} | measured | command |\n|---|---:|---|', flush=True)

  def add(self, what: str, measured: str, command: Sequence[object]) -> None:
    names = {sys.executable: 'python', str(ROOT): '.'}
    text = ' '.join(names.get(str(one), str(one)) for one in command)
    print(f'| {what} | {measured} | `{text}` |', flush=True)


def measure(size: int, workdir: pathlib.Path,
            photographs: Sequence[pathlib.Path]) -> None:
  """Prints the table of a collection of pictures."""
  folder, run = workdir / 'pictures', workdir / 'run'
  table = _Table(f'{size:,} ' + (
      f'pictures of {len(photographs):,} photographs' if photographs
      else 'drawn pictures'))

  def path_of(number: int) -> pathlib.Path:
    return folder / f'{number // 1000:04}' / f'IMG_{number:07}.jpg'

  def make(numbers: range) -> None:
    for number in numbers:
      path_of(number).parent.mkdir(parents=True, exist_ok=True)
      if photographs:
        vary(path_of(number), number, photographs)
      else:
        draw(path_of(number), number)

  command = [sys.executable, '-m', 'm3p_jax.recipes.photos',
             f'--pictures={folder}', f'--workdir={run}',
             f'--weights={_weights(workdir)}']
  make(range(size - 100))
  parts = [_time(lambda: _kill(command, run, size // 256 // 3))]
  make(range(size - 100, size))
  parts.append(_time(lambda: _kill(command, run, 2 * size // 256 // 3)))
  parts.append(_time(lambda: _run(command)))
  table.add('from nothing, killed at a third, 100 added, killed at two thirds',
            f'{" + ".join(f"{part:,.0f}" for part in parts)} s', command)
  start_up = _time(lambda: _run(command))
  table.add('the same again: start-up', f'{start_up:.0f} s', command)
  spread = range(0, size - 100, max(2, (size - 100) // 50))[:50]
  for what, change in (
      ('add 100', lambda: make(range(size, size + 100))),
      ('remove 50', lambda: [path_of(one).unlink() for one in spread]),
      ('rename 50', lambda: [path_of(one + 1).rename(path_of(one + 1).with_name(
          f'renamed {one}.jpg')) for one in spread])):
    change()
    took = _time(lambda: _run(command))
    table.add(what, f'{took:.0f} s, {took - start_up:.0f} beside start-up',
              command)
  _measure_use(run, table, has_joint=True)


def measure_vectors(count: int, workdir: pathlib.Path) -> None:
  """Prints the table of an exported index of random vectors."""
  (workdir / 'one').mkdir(parents=True)
  draw(workdir / 'one' / 'one.jpg', 0)
  _run([sys.executable, '-m', 'm3p_jax.recipes.photos',
        f'--pictures={workdir / "one"}', f'--workdir={workdir / "run"}'])
  folder = workdir / 'index'
  manifest = exported.export(search.load(workdir / 'run'), folder)
  dim = manifest['embedding_dim']
  vectors_IE = np.lib.format.open_memmap(
      folder / index_lib.VECTORS, 'w+', np.float32, (count, dim))
  rng = np.random.default_rng(0)
  for part in np.split(np.arange(count), range(10_000, count, 10_000)):
    rows_IE = rng.normal(size=(len(part), dim)).astype(np.float32)
    vectors_IE[part] = rows_IE / np.linalg.norm(rows_IE, axis=1, keepdims=True)
  vectors_IE.flush()
  del vectors_IE
  index_lib.finish(folder, ({
      'image_id': f'{number // 1000}/IMG_{number}.jpg', 'picture': '',
      'original': '', 'captions': {'en': ['a picture']},
      'content': f'{number:064x}'} for number in range(count)), {
          key: value for key, value in manifest.items()
          if key not in ('num_pictures', 'sha256')})
  _measure_use(folder, _Table(f'{count:,} random vectors'), has_joint=False)


def _measure_use(path: pathlib.Path, table: _Table, *,
                 has_joint: bool) -> None:
  """Adds the rows of an index that is there: asked, and as a page."""
  command = [sys.executable, '-c', _ASK, path]
  load, query, memory = json.loads(subprocess.run(
      command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True,
  ).stdout.splitlines()[-1])
  ask = ['search.load(', path, ').search(…)']
  table.add('load, and a first query', f'{load:.1f} s', ask)
  table.add('a query', f'{1000 * query:.0f} ms', ask)
  table.add('memory', f'{memory:.2f} GiB', ask)
  serve = [sys.executable, 'main.py', '--mode=serve', f'--workdir={path}',
           '--port=0']
  for which in ('first', 'second'):
    with _page(serve) as (ready, address, process):
      table.add(f'page: {which} start', f'{ready} s', serve)
      if which == 'first':
        continue
      # What pictures are asked is still made ready.
      table.add(f'page: the first {_SECONDS} s, 1 client',
                _ask_page(address, 1), serve)
      for count in _CLIENTS:
        table.add(f'page: {count} clients, median and 95 %',
                  _ask_page(address, count), serve)
      if has_joint:
        for _ in range(8):
          threading.Thread(target=_ask_jointly, args=(address,),
                           daemon=True).start()
        time.sleep(1)
        table.add('page: a dual client beside eight joint ones',
                  _ask_page(address, 1), serve)
      status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
      peak = int(re.search(r'VmHWM:\s+(\d+)', status)[1])
      table.add('page: memory', f'{peak / 2**20:.2f} GiB', serve)
  table.add('disk', _disk(path), ['du', '-sh', path])


@contextlib.contextmanager
def _page(command: Sequence[str]):
  """Gives how long a page took to be ready, its address and its process."""
  with subprocess.Popen(command, cwd=ROOT, text=True,
                        stdout=subprocess.PIPE) as process:
    try:
      line = process.stdout.readline()
      yield (re.search(r'after (\d+) s', line)[1],
             urllib.parse.urlparse(line.split()[-1]), process)
    finally:
      process.terminate()


def _ask_page(address: urllib.parse.ParseResult, count: int) -> str:
  """Returns how long answers take that so many clients ask for at once."""
  seconds: list[float] = []
  end = time.monotonic() + _SECONDS

  def ask(client: int) -> None:
    number = 0
    while (start := time.monotonic()) < end:
      _get(address, f'/search?query=children+{client}+{number}')
      seconds.append(time.monotonic() - start)
      number += 1

  clients = [threading.Thread(target=ask, args=(client,))
             for client in range(count)]
  for client in clients:
    client.start()
  for client in clients:
    client.join()
  return ', '.join(f'{1000 * np.quantile(seconds, part):.0f}'
                   for part in (.5, .95)) + ' ms'


def _ask_jointly(address: urllib.parse.ParseResult) -> None:
  number = 0
  with contextlib.suppress(OSError, http.client.HTTPException):  # It ended.
    while True:
      _get(address, f'/search?mode=joint&query=dogs+{id(address)}+{number}')
      number += 1


def _get(address: urllib.parse.ParseResult, path: str) -> None:
  connection = http.client.HTTPConnection(address.hostname, address.port)
  connection.request('GET', path)
  connection.getresponse().read()
  connection.close()


def _weights(workdir: pathlib.Path) -> pathlib.Path:
  """Returns a copy of the weights that may order jointly."""
  folder = shutil.copytree(photos.SHIPPED, workdir / 'weights')
  path = folder / 'manifest.json'
  manifest = json.loads(path.read_text())
  manifest['objectives'].append('matching')
  path.write_text(json.dumps(manifest))
  return folder


def _run(command: Sequence[str]) -> None:
  subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _kill(command: Sequence[str], run: pathlib.Path, num_shards: int) -> None:
  """Runs a command until so many shards are there."""
  with subprocess.Popen(command, cwd=ROOT,
                        stdout=subprocess.DEVNULL) as process:
    while process.poll() is None and sum(
        1 for _ in run.glob('data/.captions.partial/shards/*.json')
    ) < num_shards:
      time.sleep(0.2)
    process.send_signal(signal.SIGKILL)


def _time(work: Callable[[], object]) -> float:
  start = time.monotonic()
  work()
  return time.monotonic() - start


def _disk(folder: pathlib.Path) -> str:
  size = sum(os.lstat(os.path.join(here, name)).st_size
             for here, _, names in os.walk(folder) for name in names)
  return f'{size / 2**20:,.0f} MiB'


def main(argv: Sequence[str]) -> None:
  """Prints the tables, each row when it is measured."""
  console.check_flags(argv, ())
  values = flags.FLAGS
  if not photos.SHIPPED.is_dir():
    raise errors.UserError(f'{photos.SHIPPED} is not there')
  workdir = pathlib.Path(values.workdir).absolute()
  if workdir.exists():  # It will be deleted.
    raise errors.UserError(f'--workdir={workdir} exists; allowed: a new folder')
  photographs = sorted(pathlib.Path(values.photos).glob('*.jpg')
                       ) if values.photos else []
  for size in map(int, values.sizes):
    measure(size, workdir, photographs)
    shutil.rmtree(workdir)
  for count in map(int, values.vectors):
    measure_vectors(count, workdir)
    shutil.rmtree(workdir)
  print('\n' + json.dumps(provenance.collect()))


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/collections', 'Folder that is filled, '
                      'and deleted after each table.')
  flags.DEFINE_list('sizes', [], 'Numbers of pictures, as 10100.')
  flags.DEFINE_string('photos', '', 'Folder of the photographs (JPEG) that the '
                      'pictures are made of; none = they are drawn.')
  flags.DEFINE_list('vectors', [], 'Numbers of vectors, as 101000,1000000.')
  app.run(console.one_line(main))
