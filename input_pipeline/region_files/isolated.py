"""Reads files in a process of their own, since a library can crash on damage.

HDF5 and LMDB trust what they read: a truncated LMDB ends a process with a bus
error. Here that ends the reading process, and its parent names the file.
"""

from collections.abc import Iterator
import functools
import os
import pathlib
import socket
import subprocess
import sys
import threading
from typing import Any

from input_pipeline import errors
from input_pipeline.region_files import contract
from input_pipeline.region_files import wire

_ROOT = pathlib.Path(__file__).parents[2]
# The longest that one image may take: damage can lead in circles.
PATIENCE_SECONDS = 120


@functools.cache
def _zygote(parent: int) -> tuple[socket.socket, subprocess.Popen]:
  """Returns the process that forks and the way to it, started once."""
  del parent  # A forked parent starts its own.
  ours, theirs = socket.socketpair()
  with theirs:
    # Ends by itself when the last copy of our socket is closed.
    process = subprocess.Popen(
        [sys.executable, '-m', 'input_pipeline.region_files.child',
         str(theirs.fileno())], pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ | {
            'PYTHONPATH': os.pathsep.join(
                [str(_ROOT), os.environ.get('PYTHONPATH', '')]).rstrip(
                    os.pathsep),
            # Threads and forks do not mix.
            'OPENBLAS_NUM_THREADS': '1', 'OMP_NUM_THREADS': '1'})
  return ours, process


class Reader(contract.Reader):
  """A file that another process has open; see `contract.Reader`."""

  def __init__(self, name: str, path: pathlib.Path, where: Any):
    """Opens a file.

    Args:
      name: of the format.
      path: of the file.
      where: the format's `Reader.where`.

    Raises:
      UserError: it is damaged, or not of the format.
    """
    super().__init__(path)
    self.where = where  # type: ignore[method-assign]
    self._lock = threading.Lock()
    self._connection, theirs = socket.socketpair()
    try:
      with theirs:
        zygote, _ = _zygote(os.getpid())
        socket.send_fds(zygote, [b'+'], [theirs.fileno()])
      wire.receive(self._connection)
    except (wire.Closed, OSError) as error:
      self.close()
      raise errors.UserError(
          f'cannot start the process that reads {path}: {error}') from error
    try:
      self._ask({'format': name, 'path': str(path.resolve()),
                 'patience': PATIENCE_SECONDS})
    except errors.UserError:
      self.close()
      raise

  def entries(self) -> Iterator[contract.Entry]:
    question = {'entries': 'first'}
    while found := self._ask(question)[0]['entries']:
      yield from (contract.Entry(*entry) for entry in found)
      question = {'entries': 'next'}

  def load(self, place: Any) -> contract.ImageRegions:
    message, arrays = self._ask({'load': place})
    if 'image_id' not in message:
      raise contract.RowError(message['reason'], message['detail'])
    return wire.unpack(message, arrays)

  def refresh(self) -> None:
    """Brings `found` up to date."""
    self.found = self._ask({'found': True})[0]

  def _ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], list]:
    """Returns the answer.

    Raises:
      UserError: the file is damaged; it may have crashed the other process.
    """
    try:
      with self._lock:
        wire.send(self._connection, question)
        answer, arrays = wire.receive(self._connection)
    except (wire.Closed, OSError, ValueError) as error:
      raise errors.UserError(
          f'{self.path} is damaged: the process that read it crashed, or took '
          f'over {PATIENCE_SECONDS} s for an image') from error
    if 'error' in answer:
      raise errors.UserError(answer['error'])
    return answer, arrays

  def close(self) -> None:
    self._connection.close()
