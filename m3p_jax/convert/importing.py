"""Weight files of other projects as checkpoints of ours."""

from collections.abc import Sequence
import pathlib
from typing import Any

from flax import linen as nn
import jax

from input_pipeline import errors
from m3p_jax.convert import assembly
from m3p_jax.convert import e5
from m3p_jax.convert import files
from m3p_jax.convert import from_m3p
from m3p_jax.convert import from_volta
from m3p_jax.convert import from_xlmr
from m3p_jax.convert import m3p_languages
from m3p_jax.convert import names as names_lib
from m3p_jax.convert import report
from m3p_jax.convert import tensors as tensors_lib
from m3p_jax.model import config as model_config
from m3p_jax.saving import deferred

KINDS = ('m3p', 'volta', 'xlmr', 'e5', 'safetensors')


def read(kind: str, path: str | pathlib.Path, *,
         asked: model_config.ModelConfig | None = None,
         complete: bool = False, seed: int = 0) -> assembly.Imported:
  """Returns the parameters of a weight file.

  Args:
    kind: one of `KINDS`.
    path: of the file.
    asked: geometry of --config, None without.
    complete: use every optional part of an M3P file, not those asked for.
    seed: of parameters that the file lacks.

  Raises:
    UserError: the file cannot be read, its geometry is not known or not the
      asked one, or a tensor is missing, surplus or of another shape.
  """
  path = pathlib.Path(path)
  key = jax.random.key(seed)
  if kind == 'e5':
    if not asked:
      raise errors.UserError('--from=e5 needs --config: the file says nothing '
                             'of regions and heads')
    params = nn.unbox(e5.to_params(asked, key, path=path))
    return assembly.Imported(params, asked, [], {}, {})
  file = tensors_lib.read(path)
  if kind == 'm3p':
    imported = from_m3p.read(file, path, key, asked=asked, complete=complete)
  elif kind == 'safetensors':
    imported = _read_ours(file, path)
  else:
    module = {'xlmr': from_xlmr, 'volta': from_volta}[kind]
    imported = module.read(file, path, key, asked=asked)
  assembly.warn_of_odd_numbers(file.tensors, path)
  return imported._replace(sha256=file.sha256)


def write(imported: assembly.Imported, path: pathlib.Path, *,
          asked_languages: Sequence[str] | None) -> None:
  """Writes a checkpoint folder.

  Args:
    imported: what was read.
    path: of the folder, which does not exist.
    asked_languages: `data.languages` of --config, None without.

  Raises:
    UserError: the language table has another number of rows than there are
      names.
  """
  files.write_checkpoint(
      path, imported.params, imported.config,
      languages=languages(imported, asked_languages),
      aside=files.Aside(imported.unused, imported.prefix),
      lines=imported.lines, sha256=imported.sha256)


def languages(imported: assembly.Imported,
              asked: Sequence[str] | None) -> list[str]:
  """Returns the name of each row of the language table, by our codes.

  Args:
    imported: what was read.
    asked: `data.languages` of --config, None without.

  Raises:
    UserError: nothing names them, or not as many.
  """
  count = imported.config.num_languages
  numbers = imported.options.get('lang2id')
  if count == 1:
    return list(asked or ('en',))
  if isinstance(numbers, dict) and numbers:
    source = 'the file\'s options'
    names = sorted(numbers, key=lambda name: numbers[name])
  elif asked:
    names, source = list(asked), 'data.languages of --config'
  else:
    names, source = list(m3p_languages.LANGUAGES), 'the release'
  if len(names) != count:
    raise errors.UserError(
        f'the file has a language table of {count} rows, but {source} names '
        f'{len(names)} languages; allowed: a --config whose data.languages '
        f'names {count}, in their order')
  return [m3p_languages.OURS.get(name, name) for name in names]


def _read_ours(file: tensors_lib.File,
               path: pathlib.Path) -> assembly.Imported:
  """Returns what `export --to=safetensors` wrote."""
  try:
    config = model_config.geometry(file.geometry)
  except (TypeError, ValueError) as error:
    raise errors.UserError(
        f'{path.with_name("config.json")}: not a geometry of ours: '
        f'{error}') from error
  shapes = assembly.shapes_of(config)
  names: Any = [names_lib.Name(name, name) for name in shapes]
  assembly.check(file.tensors, path, names, shapes)
  lines = [report.Line('used', name, shape) for name, shape in shapes.items()]
  params = {name: deferred.Deferred(tensor.shape, tensor.read)
            for name, tensor in file.tensors.items()}
  return assembly.Imported(assembly.nested(params), config, lines, {}, {})
