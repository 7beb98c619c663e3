"""Downloads a package with pip, npm or apt, without root, into a folder.

Each client checks what it gets by its own means; what is fixed by a checksum
is checked once more in `sources`.
"""

from collections.abc import Mapping, Sequence
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

from input_pipeline import errors
from input_pipeline.downloads import archives

# What a client prints → what to do. pip names a dead network first and then
# finds no version.
_HINTS = {
    ('temporary failure', 'could not resolve', 'connection',
     'could not connect', 'unable to connect', 'timed out',
     'network is unreachable', 'no route to host', 'proxyerror',
     'failed to fetch', 'enotfound', 'econnre', 'eai_again', 'etimedout',
     'enetunreach'): (
         'no answer from the network: check the connection and the proxy '
         'settings of the client, then run the same command again; what is '
         'complete is kept'),
    ('no matching distribution', 'unable to locate package', 'no candidate',
     'e404', 'etarget'): (
         'the registry in use does not offer it or cannot be reached: check '
         'the connection and the settings of the client (on Ubuntu, that '
         '"universe" is among the sources of apt)')}
_DISK_WORDS = ('no space left', 'enospc', "don't have enough free space")


def run(command: Sequence[str], what: str, *, folder: pathlib.Path,
        extra_env: Mapping[str, str] | None = None) -> str:
  """Returns the output of a client that runs in a folder.

  Raises:
    UserError: it is missing or failed; the message says what to do.
  """
  # Without a locale the messages are those that `_failure` knows.
  env = {**os.environ, 'LC_ALL': 'C.UTF-8', **(extra_env or {})}
  try:
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, text=True,
        errors='replace', stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        check=False)
  except (FileNotFoundError, PermissionError) as error:
    raise errors.UserError(
        f'{what}: {command[0]} is not on this machine or cannot be run; '
        'install it') from error
  if done.returncode:
    raise _failure(what, done.stdout, folder)
  return done.stdout


def _failure(what: str, output: str,
             folder: pathlib.Path) -> errors.UserError:
  lines = [line.strip() for line in output.splitlines() if line.strip()]
  if any(word in output.lower() for word in _DISK_WORDS):
    return archives.disk_full(folder)
  if 'no module named pip' in output.lower():
    return errors.UserError(
        f'{what}: this Python has no pip; run `{sys.executable} -m ensurepip`, '
        'then the same command again')
  for words, hint in _HINTS.items():
    for line in lines:
      if any(word in line.lower() for word in words):
        return errors.UserError(f'{what} failed: {hint}: {line}')
  return errors.UserError(
      f'{what} failed: the client said: {" | ".join(lines[-2:])}')


def pip_download(package: str, version: str, folder: pathlib.Path,
                 options: Sequence[str] = ()) -> pathlib.Path:
  """Returns the wheel, downloaded into `folder`."""
  pinned = f'{package}=={version}'
  # pip would fill /tmp, which may be small.
  temporary = folder.with_name('tmp')
  temporary.mkdir(exist_ok=True)
  run([sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download',
       '--no-deps', '--quiet', '--dest', str(folder), *options, pinned],
      f'pip download {pinned}', folder=folder,
      extra_env={'TMPDIR': str(temporary)})
  return _only(folder, '*.whl')


def npm_download(package: str, version: str, folder: pathlib.Path,
                 npm: Sequence[str]) -> pathlib.Path:
  """Returns the package's tar file, downloaded into `folder` by `npm`."""
  pinned = f'{package}@{version}'
  # By default npm waits minutes before it says that the network is dead.
  run([*npm, 'pack', '--loglevel=error', '--fetch-retry-mintimeout=1000',
       '--fetch-retry-maxtimeout=10000', pinned], f'npm pack {pinned}',
      folder=folder)
  return _only(folder, '*.tgz')


def apt_download(package: str, folder: pathlib.Path,
                 state: pathlib.Path) -> pathlib.Path:
  """Returns the .deb, its signature checked by apt, without root.

  Args:
    folder: where it is put; a part of it that is there is completed.
    state: apt's own lists and cache, kept between calls.

  Raises:
    UserError: there is no apt, or it failed.
  """
  if not shutil.which('apt-get') or not shutil.which('dpkg-deb'):
    raise errors.UserError(
        f'{package} comes with Debian and Ubuntu, and there is no apt-get '
        'here. Prepare what uses it on such a machine or in such a container '
        'and copy the data folder; everything else works without')
  options = _apt_options(state)
  command = ['apt-get', *options, '-qq', 'download', package]
  is_new = _update_lists(options, state)
  try:
    run(command, f'apt-get download {package}', folder=folder)
  except errors.UserError:
    # Lists grow old: a package they name may be gone.
    (state / 'updated').unlink(missing_ok=True)
    if is_new:
      raise
    _update_lists(options, state)
    run(command, f'apt-get download {package}', folder=folder)
  return _only(folder, '*.deb')


def _apt_options(state: pathlib.Path) -> list[str]:
  for name in ('lists/partial', 'cache/archives/partial'):
    (state / name).mkdir(parents=True, exist_ok=True)
  # Sandbox: root's apt would drop to a user who cannot write here.
  return ['-o', f'Dir::State::Lists={state}/lists',
          '-o', f'Dir::Cache={state}/cache', '-o', 'APT::Sandbox::User=root',
          '-o', 'Acquire::Languages=none', '-o', 'Debug::NoLocking=1']


def _update_lists(options: Sequence[str], state: pathlib.Path) -> bool:
  """Returns whether the lists were fetched now, not by an earlier call."""
  # Two processes may not write one folder of lists.
  with open(state / 'update.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if (state / 'updated').exists():
      return False
    output = run(['apt-get', *options, '-q', 'update'], 'apt-get update',
                 folder=state)
    # apt takes a dead network for a success with warnings; one repository of
    # several may well be dead.
    if 'Failed to fetch' not in output:
      (state / 'updated').touch()
    elif not any((state / 'lists').glob('*_Packages*')):
      raise _failure('apt-get update', output, state)
    return True


def _only(folder: pathlib.Path, pattern: str) -> pathlib.Path:
  found = sorted(folder.glob(pattern))
  if len(found) != 1:
    raise errors.UserError(
        f'{folder} should hold one {pattern}; found {len(found)}: delete it '
        'and run the same command again')
  return found[0]
