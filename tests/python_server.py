"""A Python that has its libraries already: every command is a fork of it.

`python -m tests.python_server SOCKET` listens; `write_client` writes a program
that takes the place of `python` on PATH. What a command types and prints is its
own, and so is its process; only the seconds of importing TensorFlow and JAX
are spent once.
"""

import json
import os
import pathlib
import runpy
import select
import signal
import socket
import sys
import traceback
import warnings

_CLIENT = '''#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
  server.connect({path!r})
  socket.send_fds(server, [json.dumps([sys.argv[1:], os.getcwd()]).encode()],
                  [0, 1, 2])
  sys.exit(int(server.recv(16) or b'70'))
'''


def write_client(program: pathlib.Path, path: pathlib.Path) -> None:
  """Writes the program that sends its arguments to the server at `path`."""
  program.write_text(_CLIENT.format(python=sys.executable, path=str(path)))
  program.chmod(0o755)


def _run(arguments: list[str]) -> None:
  """Does what Python does with these arguments."""
  first, *rest = arguments
  sys.path[0] = os.getcwd()
  if first == '-m':
    sys.argv = rest
    runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
  elif first == '-':
    sys.argv = arguments
    exec(compile(sys.stdin.read(), '<stdin>', 'exec'), {'__name__': '__main__'})
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


def _serve(connection: socket.socket) -> None:
  """Runs one command in a child and sends its exit status."""
  message, files, *_ = socket.recv_fds(connection, 2**20, 3)
  child = os.fork()
  if not child:
    for number, (file, name) in enumerate(zip(
        files, ('stdin', 'stdout', 'stderr'), strict=True)):
      os.dup2(file, number)
      # Python's own objects remember what kind of file the server's was.
      setattr(sys, name, open(  # noqa: SIM115
          number, 'w' if number else 'r', encoding='utf-8', closefd=False))
    arguments, folder = json.loads(message)
    os.chdir(folder)
    status = _status(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  for file in files:
    os.close(file)
  while True:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
      connection.send(str(os.waitstatus_to_exitcode(status) % 256).encode())
      return
    if select.select([connection], [], [], 0.02)[0]:
      os.kill(child, signal.SIGKILL)  # Who asked for it has gone.
      os.waitpid(child, 0)
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
    while True:
      connection, _ = server.accept()
      with connection:
        _serve(connection)


if __name__ == '__main__':
  main()
