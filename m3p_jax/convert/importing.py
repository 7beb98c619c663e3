"""Weight files of other projects as checkpoints of ours.

Sources: reference.md, section 2 (microsoft/M3P); formats.md, 2.22 (VOLTA, which
has no decoder, language table or pre-training heads).
"""

from collections.abc import Mapping, Sequence
import json
import re
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from configs import languages as language_table
from input_pipeline import errors
from input_pipeline import languages as languages_lib
from input_pipeline import paths
from input_pipeline import tokenizer
from m3p_jax import checkpoint as checkpoint_lib
from m3p_jax.convert import e5
from m3p_jax.convert import files
from m3p_jax.convert import geometry
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.model import config as model_config

ModelConfig = model_config.ModelConfig
KINDS = ('m3p', 'volta', 'xlmr', 'e5', 'safetensors')
# Beside a checkpoint: what no part of the model reads, and the report.
ASIDE, REPORT = 'unused.safetensors', 'import.json'

# VOLTA's task heads, its own poolers, M3P's dead map of class distributions,
# and second names of shared weights.
_VOLTA_UNUSED = re.compile(
    r'(clfs_dict|cls|cls_dict|fusion|dropout)\.|bert\.(v_pooler|pooler)\.|'
    r'bert\.embeddings\.image_distbution_embeddings\.|'
    r'bert\.encoder\..*\.v_(query|key|value|dense|LayerNorm)\.|'
    r'.*\.position_ids$')
# XLM-R counts positions from 2 on: rows 0 and 1 are never read.
_XLMR_SHIFT = 2
# Its token head has a layer that M3P's lacks; buffers, pooler and the heads of
# fine-tuned models are no part of the encoder.
_XLMR_UNUSED = ('lm_head.', 'pooler.', 'classifier.', 'qa_outputs.',
                'embeddings.position_ids', 'embeddings.token_type_ids')
# Of the whole model, and of sentence-transformers around it.
_XLMR_PREFIX = re.compile(r'^(0\.auto_model\.)?(roberta\.)?')
# TensorFlow's names of LayerNorm's tensors, in files converted long ago.
_XLMR_OLD_NORM = {'LayerNorm.gamma': 'LayerNorm.weight',
                  'LayerNorm.beta': 'LayerNorm.bias'}
_XLMR_POSITIONS = 'embeddings.position_embeddings.weight'
_XLMR_TYPES = 'embeddings.token_type_embeddings.weight'


class Imported(NamedTuple):
  """A file as a checkpoint of ours.

  Attributes:
    params: of the whole model.
    config: geometry.
    lines: what became of each tensor.
    unused: tensors that no part of the geometry reads, by their keys.
    options: the options that the file was trained with.
    prefix: of the file's keys.
    sha256: of each file that was read, by its name.
  """
  params: Any
  config: ModelConfig
  lines: Sequence[layout.Line] = ()
  unused: files.Tensors = {}
  options: Mapping[str, Any] = {}
  prefix: str = ''
  sha256: Mapping[str, str] = {}


def read(kind: str, path: str | paths.Path, *,
         asked: ModelConfig | None = None,
         complete: bool = False, seed: int = 0) -> Imported:
  """Returns the parameters of a weight file.

  Args:
    kind: one of `KINDS`.
    path: of the file.
    asked: geometry of --config, None without.
    complete: use every optional part of an M3P file, not those asked for.
    seed: of parameters that the file lacks.

  Raises:
    UserError: the file cannot be read, its geometry is not known or not the
      asked one, it computes what this model does not, or a tensor is missing,
      surplus, of another shape or not finite.
  """
  path = paths.local(path, '--path')
  key = jax.random.key(seed)
  if kind == 'e5':
    if not asked:
      raise errors.UserError('--from=e5 needs --config: the file says nothing '
                             'of regions and heads')
    return Imported(e5.to_params(asked, key, path=path), asked)
  file = files.read(path)
  if kind == 'm3p':
    imported = _read_m3p(file, path, key, asked, complete=complete)
  elif kind == 'safetensors':
    imported = _read_ours(file, path)
  else:
    read_kind = {'xlmr': _read_xlmr, 'volta': _read_volta}[kind]
    imported = read_kind(file, path, key, asked)
  _check_numbers(file.tensors, imported.unused, path)
  if imported.config.vocab_size < tokenizer.VOCAB_SIZE:
    logging.warning(
        '%s: the word table has %s rows, but XLM-R\'s tokenizer %s ids: data '
        'prepared here will be refused', path,
        f'{imported.config.vocab_size:,}', f'{tokenizer.VOCAB_SIZE:,}')
  return imported._replace(
      sha256=file.sha256, lines=[*imported.lines, *(
          layout.Line('unused', name, tensor.shape)
          for name, tensor in imported.unused.items())])


def write(imported: Imported, path: paths.Path, *,
          asked_languages: Sequence[str] | None) -> None:
  """Writes a checkpoint folder, which must not exist.

  Raises:
    UserError: as `languages`.
  """
  checkpoint_lib.save_weights(
      path, imported.params, imported.config,
      {'languages': languages(imported, asked_languages)})
  (path / REPORT).write_text(json.dumps(
      {'sha256': dict(imported.sha256), 'prefix': imported.prefix,
       'tensors': [line._asdict() for line in imported.lines]},
      indent=1) + '\n')
  if imported.unused:
    files.write_safetensors(path / ASIDE, imported.unused)


def languages(imported: Imported, asked: Sequence[str] | None) -> list[str]:
  """Returns the name of each row of the language table, by our codes.

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
    names, source = list(language_table.EDITIONS), 'the release'
  if len(names) != count:
    raise errors.UserError(
        f'the file has a language table of {count} rows, but {source} names '
        f'{len(names)} languages; allowed: a --config whose data.languages '
        f'names {count}, in their order')
  # English has a row of its own.
  return [name if name == 'simple' else languages_lib.edition(name) or name
          for name in names]


def _read_m3p(file: files.File, path: paths.Path, key: jax.Array,
              asked: ModelConfig | None, *, complete: bool) -> Imported:
  config = geometry.of_m3p(file, path, asked, complete=complete)
  tensors = file.tensors
  names = names_lib.m3p(config)
  _check_shapes(tensors, path, names, layout.m3p_shapes(
      config, refiner_layers=geometry.refiner_layers(tensors)))
  ties = [(copy, original) for copy, original in names_lib.TIED.items()
          if copy in tensors]
  for copy, original in ties:
    if not np.array_equal(tensors[copy], tensors[original], equal_nan=True):
      raise errors.UserError(
          f'{path}: {copy!r} differs from {original!r}; the release ties them')
  params, lines = _assemble(names, tensors, config, key)
  lines += [layout.Line('used', copy, tensors[copy].shape, f'is {original!r}')
            for copy, original in ties]
  used = {name.key for name in names} | set(names_lib.TIED)
  unused = {key: tensor for key, tensor in tensors.items() if key not in used}
  return Imported(params, config, lines, unused, file.params, file.prefix)


def _read_volta(file: files.File, path: paths.Path, key: jax.Array,
                asked: ModelConfig | None) -> Imported:
  config = geometry.of_volta(file, path, asked)
  tensors = dict(file.tensors)
  wrong, meant = names_lib.volta_typo(config)
  if wrong in tensors and meant not in tensors:
    tensors[meant] = tensors.pop(wrong)
  unused = {name: tensor for name, tensor in tensors.items()
            if _VOLTA_UNUSED.match(name)}
  shared = {name: tensor for name, tensor in tensors.items()
            if name not in unused}
  names = names_lib.volta(config)
  _check_shapes(shared, path, names, layout.their_shapes(
      names, layout.shapes_of(config), vocab_size=config.vocab_size))
  params, lines = _assemble(names, shared, config, key)
  return Imported(params, config, lines, unused)


def _read_xlmr(file: files.File, path: paths.Path, key: jax.Array,
               asked: ModelConfig | None) -> Imported:
  tensors = {_xlmr_name(key): tensor for key, tensor in file.tensors.items()}
  if len(tensors) < len(file.tensors):
    raise errors.UserError(
        f'{path}: has the same tensor under several names; allowed: one model')
  config = geometry.of_xlmr(file._replace(tensors=tensors), path, asked)
  unused = {name: tensor for name, tensor in tensors.items()
            if name.startswith(_XLMR_UNUSED)}
  encoder = {name: tensor for name, tensor in tensors.items()
             if name not in unused}
  names = names_lib.xlmr(config)
  shapes = layout.their_shapes(
      names, layout.shapes_of(config), vocab_size=config.vocab_size)
  shapes[_XLMR_POSITIONS] = (config.max_positions, config.width)
  shapes[_XLMR_TYPES] = (1, config.width)
  _check_shapes(encoder, path, names, shapes)
  # The rows after the last usable one are fresh.
  positions = config.width ** -0.5 * np.array(jax.random.normal(
      jax.random.fold_in(key, 1), shapes[_XLMR_POSITIONS]))
  usable = config.max_positions - _XLMR_SHIFT
  positions[:usable] = (
      tensors[_XLMR_POSITIONS][_XLMR_SHIFT:] + tensors[_XLMR_TYPES][0])
  params, lines = _assemble(
      names, encoder, config, key, {'positions/embedding': positions})
  lines += [
      layout.Line('used', _XLMR_POSITIONS, shapes[_XLMR_POSITIONS],
                  f'row i is our row i − {_XLMR_SHIFT}'),
      layout.Line('used', _XLMR_TYPES, shapes[_XLMR_TYPES],
                  'added to the positions'),
      layout.Line('fresh', 'positions/embedding', (_XLMR_SHIFT, config.width),
                  f'rows {usable} and {usable + 1}')]
  return Imported(params, config, lines, unused)


def _xlmr_name(key: str) -> str:
  name = _XLMR_PREFIX.sub('', key)
  for old, new in _XLMR_OLD_NORM.items():
    if name.endswith(old):
      return name.removesuffix(old) + new
  return name


def _read_ours(file: files.File, path: paths.Path) -> Imported:
  """Returns what `export --to=safetensors` wrote."""
  try:
    config = model_config.geometry(file.geometry)
  except (TypeError, ValueError) as error:
    raise errors.UserError(
        f'{path.with_name("config.json")}: not a geometry of ours: '
        f'{error}') from error
  shapes = layout.shapes_of(config)
  _check_shapes(
      file.tensors, path, [names_lib.Name(name, name) for name in shapes],
      shapes)
  lines = [layout.Line('used', name, shape) for name, shape in shapes.items()]
  params = {name: np.asarray(tensor, np.float32)
            for name, tensor in file.tensors.items()}
  return Imported(layout.nested(params), config, lines)


def _check_shapes(tensors: files.Tensors, path: paths.Path,
                  names: Sequence[names_lib.Name],
                  shapes: Mapping[str, tuple[int, ...]]) -> None:
  """Raises UserError for the first missing, surplus or misshapen tensor.

  The geometry reads `names`; every tensor of `shapes` may be there.
  """
  needed = {name.key for name in names}
  for key, shape in shapes.items():
    if key not in tensors:
      if key in needed:
        raise errors.UserError(f'{path}: tensor {key!r} is missing')
    elif tensors[key].shape != shape:
      raise errors.UserError(
          f'{path}: {key!r} has shape {tensors[key].shape}; allowed: {shape}')
  for key in tensors:
    if key not in shapes:
      raise errors.UserError(
          f'{path}: tensor {key!r} {tensors[key].shape} belongs to no part of '
          'the model')


def _assemble(names: Sequence[names_lib.Name], tensors: files.Tensors,
              config: ModelConfig, key: jax.Array,
              given: Mapping[str, np.ndarray] | None = None,
              ) -> tuple[Any, list[layout.Line]]:
  """Returns (parameters, lines); `given` are more parameters, by path."""
  params: dict[str, Any] = layout.stack(
      names, tensors, layout.shapes_of(config)) | dict(given or {})
  fresh = layout.fresh(config, params, key)
  lines = [layout.Line('used', name.key, tensors[name.key].shape)
           for name in names if name.key in tensors]
  lines += [layout.Line('fresh', path, value.shape)
            for path, value in sorted(fresh.items())]
  return layout.nested(params | fresh), lines


def _check_numbers(tensors: files.Tensors, unused: files.Tensors,
                   path: paths.Path) -> None:
  """Raises UserError for a number that is not finite; warns in `unused`."""
  ignored = set(map(id, unused.values()))
  for key, tensor in tensors.items():
    if tensor.dtype.kind in 'iub':
      continue
    count = int((~np.isfinite(tensor.astype(np.float32))).sum())
    if count and id(tensor) not in ignored:
      raise errors.UserError(
          f'{path}: {key!r} holds {count:,} numbers that are not finite')
    if count:
      logging.warning('%s: %s holds numbers that are not finite', path, key)
