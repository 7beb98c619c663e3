"""A Python that has its libraries already: every command is a fork of it.

`python -m tests.python_server SOCKET` listens; `run` starts it, and writes a
program that takes the place of `python`. What a command types and prints is
its own, and so are its environment, its process and the signals that it gets;
only the seconds of importing TensorFlow and JAX are spent once.
"""

import atexit
from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings

_CLIENT = '''#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [json.dumps(
    [sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
signal.signal(signal.SIGTERM, lambda number, _: server.send(bytes([number])))
status = int(server.recv(16) or b'70')
if status < 0:
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  os.kill(os.getpid(), -status)
sys.exit(status)
'''


@contextlib.contextmanager
def run(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a program that takes the place of Python, as long as it is asked."""
  process = subprocess.Popen(
      [sys.executable, '-m', 'tests.python_server', folder / 'socket'],
      cwd=pathlib.Path(__file__).parent.parent)
  try:
    while not (folder / 'socket').exists():
      assert process.poll() is None
      time.sleep(0.1)
    program = folder / 'python'
    program.write_text(_CLIENT.format(
        python=sys.executable, path=str(folder / 'socket')))
    program.chmod(0o755)
    yield program
  finally:
    process.terminate()
    process.wait()


def _run(arguments: list[str]) -> None:
  """Does what Python does with these arguments."""
  first, *rest = arguments
  sys.path[0] = os.getcwd()
  if first == '-m':
    sys.argv = rest
    runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
  elif first in ('-', '-c'):
    sys.argv = [first, *rest[first == '-c':]]
    code = rest[0] if first == '-c' else sys.stdin.read()
    exec(compile(code, '<string>', 'exec'), {'__name__': '__main__'})
  else:
    sys.argv = arguments
    runpy.run_path(first, run_name='__main__')


def _status(arguments: list[str]) -> int:
  try:
    _run(arguments)
  except SystemExit as error:
    if error.code is None or isinstance(error.code, int):
      return error.code or 0
    print(error.code, file=sys.stderr)
    return 1
  except BaseException:
    traceback.print_exc()
    return 1
  return 0


def _command(message: bytes, files: list[int]) -> None:
  """Runs a command in this process, and ends it."""
  for number, (file, name) in enumerate(zip(
      files, ('stdin', 'stdout', 'stderr'), strict=True)):
    os.dup2(file, number)
    # Python's own objects remember what kind of file the server's was.
    stream = open(  # noqa: SIM115
        number, 'w' if number else 'r', encoding='utf-8', closefd=False)
    setattr(sys, name, stream)
    setattr(sys, f'__{name}__', stream)
  arguments, folder, environment = json.loads(message)
  os.chdir(folder)
  os.environ.clear()
  os.environ.update(environment)
  status = _status(arguments)
  atexit._run_exitfuncs()  # A process of several says that it leaves.
  # Whatever the command put in the place of its own.
  for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
    stream.flush()
  os._exit(status)


def _serve(connection: socket.socket) -> None:
  """Runs one command in a child: signals come for it, its status goes back."""
  message, files, *_ = socket.recv_fds(connection, 2**20, 3)
  child = os.fork()
  if not child:
    connection.close()
    _command(message, files)
  for file in files:
    os.close(file)
  while True:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
      connection.send(str(os.waitstatus_to_exitcode(status)).encode())
      return
    if select.select([connection], [], [], 0.02)[0]:
      asked = connection.recv(1)
      # Who asked for the command may have gone.
      os.kill(child, asked[0] if asked else signal.SIGKILL)
      if not asked:
        return


def main() -> None:
  """Listens until it is ended."""
  from tests import compiler
  compiler.configure()
  warnings.simplefilter('ignore', RuntimeWarning)  # runpy's, of imports.
  # What the commands import; nothing here starts a thread or a device.
  import tensorflow_datasets as tfds

  import input_pipeline.pipeline
  import input_pipeline.prepare
  import m3p_jax.convert.__main__
  import m3p_jax.convert.exporting
  import m3p_jax.recipes.quickstart
  import m3p_jax.search
  del m3p_jax, input_pipeline
  _ = tfds.core.GeneratorBasedBuilder  # Imported when it is first asked for.
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(sys.argv[1])
    server.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
      connection, _ = server.accept()
      with connection:
        if not os.fork():
          signal.signal(signal.SIGCHLD, signal.SIG_DFL)
          _serve(connection)
          os._exit(0)


if __name__ == '__main__':
  main()
