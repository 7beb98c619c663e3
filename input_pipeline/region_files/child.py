"""The process that opens files whose library can crash on damage.

`python -m input_pipeline.region_files.child SOCKET` waits, with the libraries
loaded, and forks for every file: a crash ends that file's process only.
"""

from collections.abc import Callable
import contextlib
import functools
import importlib
import itertools
import os
import pathlib
import resource
import signal
import socket
import sys
from typing import Any

import numpy as np  # noqa: F401 — loaded once, before the forks.

from input_pipeline import errors
from input_pipeline.region_files import contract
from input_pipeline.region_files import wire

_LIBRARIES = ('h5py', 'lmdb', 'msgpack')
_ENTRIES = 1024
# Damage may ask for any amount; LMDB's map of the file does not count.
_MAX_MEMORY_BYTES = 2**32


def serve(zygote: socket.socket) -> None:
  """Forks a process for every socket that comes in, until none can."""
  for name in _LIBRARIES:
    with contextlib.suppress(ImportError):
      importlib.import_module(name)
  # Finished processes are nobody's to wait for.
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)
  # Interrupts are the parent's to handle: it closes the sockets.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  while True:
    data, received, _, _ = socket.recv_fds(zygote, 1, 1)
    if not data:
      return
    (number,) = received
    if not os.fork():
      zygote.close()
      _limit()
      with socket.socket(fileno=number) as connection:
        with contextlib.suppress(wire.Closed, OSError):
          session(connection)
      os._exit(0)
    os.close(number)


def _limit() -> None:
  """Keeps damage from taking the machine's memory, or leaving core files."""
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  _, most = resource.getrlimit(resource.RLIMIT_DATA)
  if most == resource.RLIM_INFINITY or most > _MAX_MEMORY_BYTES:
    resource.setrlimit(
        resource.RLIMIT_DATA, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))


def session(connection: socket.socket) -> None:
  """Answers one question after another about one file."""
  wire.send(connection, {})
  (question, _) = wire.receive(connection)
  path = pathlib.Path(question['path'])

  def open_file() -> contract.Reader:
    name = question['format']
    module = importlib.import_module(f'input_pipeline.formats.{name}')
    with contract.refusing(path):
      return module.Reader(path)

  answer = functools.partial(_answer, connection, question['patience'])
  reader = answer(open_file, lambda _: ({}, ()))
  if reader is None:
    return
  entries = reader.entries()

  def some_entries() -> list[contract.Entry]:
    with contract.refusing(path):
      return list(itertools.islice(entries, _ENTRIES))

  while True:
    (question, _) = wire.receive(connection)
    if 'load' in question:
      place = question['load']

      def load(place=place) -> contract.ImageRegions:
        with contract.refusing(path, reader.where(place)):
          return reader.load(place)

      answer(load, wire.pack)
    elif 'found' in question:
      answer(lambda: reader.found, lambda found: (found, ()))
    else:
      if question['entries'] == 'first':
        entries = reader.entries()
      answer(some_entries, lambda found: ({'entries': found}, ()))


def _answer(connection: socket.socket, patience: int,
            work: Callable[[], Any],
            pack: Callable[[Any], tuple[dict[str, Any], tuple]]) -> Any:
  """Sends what `work` returns, or the error that it raises; returns it.

  Args:
    connection: to the parent.
    patience: seconds after which this process ends, caught in a circle.
    work: what may fail.
    pack: makes a message and arrays of its result.
  """
  signal.alarm(patience)
  try:
    result = work()
    message, arrays = pack(result)
  except contract.RowError as error:
    result, arrays = None, ()
    message = {'reason': error.reason, 'detail': error.detail}
  except errors.UserError as error:
    result, arrays = None, ()
    message = {'error': str(error)}
  signal.alarm(0)
  wire.send(connection, message, arrays)
  return result


if __name__ == '__main__':
  with socket.socket(fileno=int(sys.argv[1])) as given:
    serve(given)
