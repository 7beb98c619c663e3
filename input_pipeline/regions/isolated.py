"""Reads files in a process of their own, since a library can crash on damage.

HDF5 and LMDB trust what they read: a truncated LMDB ends a process with a bus
error. Here that ends the reading process, and its parent names the file.
"""

from collections.abc import Callable, Iterator
import contextlib
import importlib
import itertools
import multiprocessing
from multiprocessing import connection as connection_lib
import pathlib
import resource
import signal
import sys
import threading
import types
from typing import Any

from input_pipeline import errors
from input_pipeline import regions

# The longest that one image may take: damage can lead in circles.
PATIENCE_SECONDS = 120
# Loaded once, before the forks.
_PRELOADED = (__name__, 'h5py', 'lmdb', 'msgpack')
_ENTRIES = 1024
# Damage may ask for any amount; LMDB's map of the file does not count.
_MAX_MEMORY_BYTES = 2**32


class Reader(regions.Reader):
  """A file that another process has open; see `regions.Reader`."""

  def __init__(self, name: str, path: pathlib.Path,
               where: Callable[[Any], str]):
    """Args: `name` is the format's, `where` that of its own reader."""
    super().__init__(path)
    self.where = where  # type: ignore[assignment, method-assign]
    self._lock = threading.Lock()
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(list(_PRELOADED))
    self._connection, theirs = context.Pipe()
    self._process = context.Process(
        target=_serve, args=(theirs, name, path.resolve(), PATIENCE_SECONDS),
        daemon=True)
    with theirs, _without_main():
      self._process.start()
    try:
      self._ask('open')
    except errors.UserError:
      self.close()
      raise

  def entries(self) -> Iterator[regions.Entry]:
    is_first = True
    while found := self._ask('entries', is_first):
      yield from found
      is_first = False

  def load(self, place: Any) -> regions.RegionSet:
    return self._ask('load', place)

  def _ask(self, what: str, about: Any = None) -> Any:
    """Returns the other process's answer, or raises the error that it is."""
    try:
      with self._lock:
        self._connection.send((what, about))
        answer, self.found = self._connection.recv()
    except (EOFError, OSError) as error:
      raise regions.FileError(
          f'{self.path} is damaged: the process that read it crashed, or took '
          f'over {PATIENCE_SECONDS} s for an image') from error
    if isinstance(answer, Exception):
      raise answer
    return answer

  def close(self) -> None:
    self._connection.close()
    self._process.kill()
    self._process.join()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
  """Lets new processes not run the program's main module again.

  `python -m input_pipeline.prepare` would load TensorFlow for every file, and
  a script without `if __name__ == '__main__'` would never end.
  """
  main = sys.modules['__main__']
  sys.modules['__main__'] = types.ModuleType('__main__')
  try:
    yield
  finally:
    sys.modules['__main__'] = main


def _serve(connection: connection_lib.Connection, name: str,
           path: pathlib.Path, patience: int) -> None:
  # Damage shall neither take the machine's memory nor leave core files.
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  _, most = resource.getrlimit(resource.RLIMIT_DATA)
  if most == resource.RLIM_INFINITY or most > _MAX_MEMORY_BYTES:
    resource.setrlimit(
        resource.RLIMIT_DATA, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
  # Interrupts are the parent's to handle: it closes the connection.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  reader: Any = None
  entries: Iterator[regions.Entry] = iter(())
  with contextlib.suppress(EOFError, OSError):
    while True:
      what, about = connection.recv()
      answer: Any = None
      signal.alarm(patience)  # Ends the process, even inside of a library.
      try:
        with regions.refusing(
            path, reader.where(about) if what == 'load' else ''):
          if what == 'open':
            module = importlib.import_module(f'input_pipeline.formats.{name}')
            reader = module.Reader(path)
          elif what == 'load':
            answer = reader.load(about)
          else:
            entries = reader.entries() if about else entries
            answer = list(itertools.islice(entries, _ENTRIES))
      except errors.UserError as error:
        answer = error
      signal.alarm(0)
      connection.send((answer, reader.found if reader else {}))
