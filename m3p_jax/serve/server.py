"""Starts the page of a run."""

from collections.abc import Callable, Collection, Iterable, Mapping
import contextlib
import ipaddress
import os
import pathlib
import socket
import sys
import threading
import time
from typing import Any

from absl import logging
import ml_collections

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import startup
from m3p_jax.evaluation import results
from m3p_jax.search import commands

# Seconds that what is being answered has to end, once the page is stopped.
_PATIENCE = 2
# Of a request beside its body: the longest query, 12 bytes a character in an
# address, and what browsers add.
_HEAD_BYTES = 2**17
_OPTIONS: dict[str, Any] = {
    'log_level': 'warning', 'ws': 'none',
    'timeout_graceful_shutdown': _PATIENCE,
    'h11_max_incomplete_event_size': _HEAD_BYTES}
# Between two looks whether the collection was indexed again.
_LOOK_SECONDS = 5


def serve(workdir: str | pathlib.Path, *, host: str, port: int,
          token: str = '', config: ml_collections.ConfigDict | None = None,
          given: Collection[str] | None = None) -> None:
  """Serves the page until it is interrupted, then ends the process.

  It prints its address. A host that is not this machine's own opens the
  collection to others, who need the token; port 0 is any that is free.

  Raises:
    UserError: a package is not installed, the port is taken, or see
      `search.load`.
  """
  try:
    import uvicorn

    from m3p_jax.serve import access
    from m3p_jax.serve import app as app_lib
    from m3p_jax.serve import finder as finder_lib
  except ModuleNotFoundError as error:
    raise errors.UserError(
        f'--mode=serve needs {error.name}: pip install -r '
        'requirements-demo.txt --constraint=constraints.txt') from error
  # Taken first: a mistake here should not cost the time of loading.
  own = _is_loopback(host)
  token = access.make(token, is_needed=not own)
  listener = _listen(host, port)
  start = time.monotonic()
  startup.use_compilation_cache()
  searcher = commands.from_flags(workdir, config=config, given=given)
  read = _time(searcher.source.manifest)  # Before the index is.

  def make(searcher):
    return finder_lib.Finder(searcher, results.read(
        paths.of(workdir) / commands.LEFT_OUT).get('lines', []))

  current = [make(searcher)]
  logging.info('compiling, so that the first visitor need not wait')
  current[0].warm_up()
  app = app_lib.create(
      lambda: current[0], token=token, hosts=(
          'localhost', '127.0.0.1', '[::1]', host) if own else ('*',))
  threading.Thread(target=_keep_ready, args=(current, make, read),
                   daemon=True).start()
  name = f'[{host}]' if ':' in host else host
  seconds, port = time.monotonic() - start, listener.getsockname()[1]
  print(f'{len(searcher.index.pictures):,} pictures, ready after '
        f'{seconds:.0f} s: http://{name}:{port}'
        + (token and f'/?token={token}'), flush=True)
  if not own:
    print(f'{host} is open to other machines: who has the token sees the '
          'collection, and nothing is encrypted on the way', file=sys.stderr)
  server = uvicorn.Server(uvicorn.Config(
      app, headers=list(app_lib.HEADERS.items()), **_OPTIONS))
  with contextlib.suppress(KeyboardInterrupt):  # It is how this ends.
    server.run(sockets=[listener])
  # Threads that still work for a visitor would keep the process for minutes.
  sys.stdout.flush()
  os._exit(0)


def _check_files(pictures: Iterable[Mapping[str, Any]]) -> None:
  """Warns where files are not where they were."""
  files = [path for path in (one.get('original') for one in pictures) if path]
  gone = [path for path in files if not os.path.isfile(path)]
  if gone:
    logging.warning(
        '%d of %d pictures are not where they were read from, the first %s: '
        'their small copies are shown. Prepare them again from where they are',
        len(gone), len(files), gone[0])


def _keep_ready(current: list[Any], make: Callable[[Any], Any],
                read: int) -> None:
  """Compiles what pictures are asked; puts each newer index in place.

  Between the two it warns of files that have gone, which it looks for.

  `read` is the time of the index that is in place.
  """
  current[0].warm_up_pictures()
  _check_files(current[0].searcher.index.pictures)  # Of 100,000, a second.
  while True:
    time.sleep(_LOOK_SECONDS)
    now = _time(current[0].searcher.source.manifest)
    if now not in (0, read):
      read = now
      try:
        finder = make(current[0].searcher.renewed())
        # What is made once is made before anyone asks.
        finder.like(finder.searcher.index.key(0))
        current[0] = finder
        logging.info('the collection was indexed again: %d pictures',
                     len(finder.searcher.index.pictures))
      except errors.UserError as error:
        logging.warning('%s; the page stays as it was', error)


def _time(path: pathlib.Path | None) -> int:
  """Returns a file's time; 0 of none, and of one in a bucket."""
  try:
    return 0 if not path or paths.is_url(path) else path.stat().st_mtime_ns
  except OSError:
    return 0  # It is being replaced.


def _listen(host: str, port: int) -> socket.socket:
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen()
  except OSError as error:
    raise errors.UserError(
        f'--host={host} --port={port}: {error.strerror}; allowed: an address '
        'of this machine and a port that nothing else uses') from error
  return listener


def _is_loopback(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'
