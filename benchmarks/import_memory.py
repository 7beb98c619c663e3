"""Peak memory of `m3p_jax.convert import`, against the size of the file.

python -m benchmarks.import_memory [--folder=DIR] [--formats=m3p-zip,…]

Writes base-size files with the real names and random numbers (about 1.5 GB
each, one at a time), imports each in a process of its own, and prints what
/usr/bin/time would: the process's greatest resident set, the interpreter and
all libraries included.
"""

from collections.abc import Callable, Mapping
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
import tempfile
import time

from absl import app
from absl import flags
import numpy as np

from m3p_jax.convert import assembly
from m3p_jax.convert import layout
from m3p_jax.convert import m3p_shapes
from m3p_jax.convert import names
from m3p_jax.convert import safetensors_file
from m3p_jax.convert import torch_writer
from m3p_jax.model import config as model_config
from m3p_jax.saving import deferred
from tests import torch_files

Tensors = Mapping[str, deferred.Deferred]
_CONFIG = model_config.ModelConfig(num_region_classes=1600)
_LIMIT = 1.3


def _random(shape: tuple[int, ...]) -> deferred.Deferred:
  return deferred.Deferred(shape, lambda: np.random.default_rng(
      0).standard_normal(shape, np.float32))


def _m3p() -> Tensors:
  tensors = {f'module.{key}': _random(shape)
             for key, shape in m3p_shapes.of(_CONFIG).items()}
  for copy, original in names.TIED.items():
    tensors[f'module.{copy}'] = tensors[f'module.{original}']
  return tensors


def _others(kind: str) -> Tensors:
  of_kind = getattr(names, kind)(_CONFIG)
  return {key: _random(shape) for key, shape in layout.their_shapes(
      of_kind, assembly.shapes_of(_CONFIG),
      vocab_size=_CONFIG.vocab_size).items()}


def _xlmr() -> Tensors:
  tensors = {**_others('xlmr'),
             'embeddings.position_embeddings.weight': _random((514, 768)),
             'embeddings.token_type_embeddings.weight': _random((1, 768))}
  return {f'roberta.{key}': tensor for key, tensor in tensors.items()}


def _write_zip(folder: pathlib.Path, tensors: Tensors) -> pathlib.Path:
  path = folder / 'pytorch_model.bin'
  torch_writer.write_flat(path, tensors)
  return path


def _write_legacy(folder: pathlib.Path, tensors: Tensors) -> pathlib.Path:
  return torch_files.write_state_dict(folder / 'checkpoint.pth', tensors)


def _write_safetensors(folder: pathlib.Path, tensors: Tensors, *,
                       num_files: int) -> pathlib.Path:
  files = {f'model-{i}.safetensors': list(tensors)[i::num_files]
           for i in range(num_files)}
  for name, keys in files.items():
    safetensors_file.write(
        folder / name, {key: tensors[key] for key in keys}, {})
  if num_files == 1:
    return folder / next(iter(files))
  path = folder / 'model.safetensors.index.json'
  path.write_text(json.dumps({'weight_map': {
      key: name for name, keys in files.items() for key in keys}}))
  return path


_FORMATS: dict[str, tuple[str, Callable[[], Tensors],
                          Callable[..., pathlib.Path]]] = {
    'm3p-zip': ('m3p', _m3p, _write_zip),
    'm3p-legacy': ('m3p', _m3p, _write_legacy),
    'xlmr-zip': ('xlmr', _xlmr, _write_zip),
    'xlmr-safetensors': ('xlmr', _xlmr, functools.partial(
        _write_safetensors, num_files=1)),
    'xlmr-shards': ('xlmr', _xlmr, functools.partial(
        _write_safetensors, num_files=3)),
    'volta': ('volta', lambda: _others('volta'), _write_zip)}

flags.DEFINE_string('folder', None, 'Where the files are written for a while.')
flags.DEFINE_list('formats', list(_FORMATS), 'What is measured.')


def _run(*args: str) -> tuple[int, float]:
  """Returns (peak resident bytes, seconds) of the command."""
  start = time.perf_counter()
  process = os.posix_spawn(
      sys.executable, [sys.executable, '-m', 'm3p_jax.convert', *args],
      os.environ, file_actions=[
          (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
  _, status, usage = os.wait4(process, 0)
  if status:
    raise RuntimeError(f'{args} failed')
  kilo = 1 if sys.platform == 'darwin' else 1024  # Its unit there is a byte.
  return usage.ru_maxrss * kilo, time.perf_counter() - start


def _write(name: str, folder: pathlib.Path) -> pathlib.Path:
  _, tensors, write = _FORMATS[name]
  return write(folder, tensors())


def main(argv: list[str]) -> None:
  """Prints a line a format, and an export of the first."""
  del argv
  # The peak of a process counts what its parent held when it was started: the
  # files are written by another one, and this one stays small.
  pool = multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1)
  for name in flags.FLAGS.formats:
    kind = _FORMATS[name][0]
    folder = pathlib.Path(tempfile.mkdtemp(dir=flags.FLAGS.folder))
    try:
      path = pool.apply(_write, (name, folder))
      (folder / 'config.json').write_text(json.dumps({
          'num_heads': 12, 'num_attention_heads': 12, 'layer_norm_eps': 1e-5}))
      size = sum(file.stat().st_size for file in folder.iterdir())
      out = str(folder / 'out')
      commands = {'import': ('import', f'--from={kind}', f'--path={path}',
                             f'--out={out}')}
      if name == 'm3p-zip':
        commands['export'] = ('export', '--to=m3p', f'--checkpoint={out}',
                              f'--out={folder}/back.pth')
      for command, args in commands.items():
        peak, seconds = _run(*args)
        print(f'{name} {command}: file {size / 1e6:.0f} MB, peak '
              f'{peak / 1e6:.0f} MB, ratio {peak / size:.2f} (limit {_LIMIT} '
              f'for an import), {seconds:.0f} s', flush=True)
    finally:
      shutil.rmtree(folder)


if __name__ == '__main__':
  app.run(main)
