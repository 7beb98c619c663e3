"""How long a visitor of the web page waits for first results.

python -m benchmarks.serve_latency --workdir=DIR [--dataset=NAME]

Starts the page as a user does and asks it over HTTP, one query after another:
from sending the query to the first results, and to re-ranked ones. The page
has to be there already: its start is reported for itself.
"""

from collections.abc import Iterator
import http.client
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse

from absl import app
from absl import flags
import numpy as np

_WORKDIR = flags.DEFINE_string('workdir', None, 'Of the run.', required=True)
_DATASET = flags.DEFINE_string(
    'dataset', 'emoji', 'The collection; emoji has 1,852 pictures.')
_QUERIES = flags.DEFINE_integer('queries', 40, 'Queries of each mode.')

_ROOT = pathlib.Path(__file__).parent.parent
_WORDS = (
    'ein roter Apfel', 'a grinning cat', '赤いりんご', 'un chien qui court',
    'سيارة سريعة', 'зелёное дерево', 'घर', 'a very long walk on the beach')


def main(argv):
  """Prints percentiles of the waiting time."""
  del argv
  start = time.perf_counter()
  process = subprocess.Popen(
      [sys.executable, 'main.py', '--mode=serve', '--port=0',
       f'--workdir={pathlib.Path(_WORKDIR.value).absolute()}',
       f'--config.evaluation.dataset={_DATASET.value}'],
      cwd=_ROOT, text=True, stdout=subprocess.PIPE, env=os.environ)
  try:
    ready = process.stdout.readline()
    if 'http://' not in ready:
      sys.exit('the page did not start')
    print(f'{ready.strip()} ({time.perf_counter() - start:.0f} s in all)')
    address = urllib.parse.urlparse(ready.split()[-1])
    for mode in ('dual', 'rerank'):
      waited = [list(_ask(address.netloc, f'{_WORDS[i % len(_WORDS)]} {i}',
                          mode)) for i in range(_QUERIES.value)]
      _report(f'{mode}: first results', [times[0] for times in waited])
      if mode != 'dual':
        _report(f'{mode}: last results', [times[-1] for times in waited])
  finally:
    process.terminate()
    process.wait()


def _ask(address: str, query: str, mode: str) -> Iterator[float]:
  """Yields the seconds after which results arrived."""
  start = time.perf_counter()
  connection = http.client.HTTPConnection(address, timeout=600)
  connection.request('GET', '/search?' + urllib.parse.urlencode(
      {'query': query, 'mode': mode}))
  for _ in connection.getresponse():  # A line for each stage.
    yield time.perf_counter() - start
  connection.close()


def _report(name: str, seconds: list[float]) -> None:
  low, middle, high = 1000 * np.percentile(seconds, (0, 50, 95))
  print(f'{name:24} fastest {low:5.0f}  median {middle:5.0f}  95 % within '
        f'{high:5.0f} ms  ({len(seconds)} queries, {os.cpu_count()} cores)')


if __name__ == '__main__':
  app.run(main)
