"""Hugging Face's XLM-RoBERTa, base and large, as the text part of an M3P."""

import pathlib
import re

import jax
import numpy as np

from input_pipeline import errors
from m3p_jax.convert import assembly
from m3p_jax.convert import geometry
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.convert import report
from m3p_jax.convert import tensors as tensors_lib
from m3p_jax.model import config as model_config

# It counts positions from 2 on: rows 0 and 1 are never read.
_SHIFT = 2
# Its token head has a layer that M3P's lacks; buffers, pooler and the heads of
# fine-tuned models are no part of the encoder.
_UNUSED = ('lm_head.', 'pooler.', 'classifier.', 'qa_outputs.',
           'embeddings.position_ids', 'embeddings.token_type_ids')
# Of the whole model, and of sentence-transformers around it.
_PREFIX = re.compile(r'^(0\.auto_model\.)?(roberta\.)?')
# TensorFlow's names of LayerNorm's tensors, in files converted long ago.
_OLD_NORM = {'LayerNorm.gamma': 'LayerNorm.weight',
             'LayerNorm.beta': 'LayerNorm.bias'}
_POSITIONS = 'embeddings.position_embeddings.weight'
_TYPES = 'embeddings.token_type_embeddings.weight'


def read(file: tensors_lib.File, path: pathlib.Path, key: jax.Array, *,
         asked: model_config.ModelConfig | None) -> assembly.Imported:
  """Returns the file as a checkpoint of ours; see `importing.read`."""
  tensors = {_name(key): tensor for key, tensor in file.tensors.items()}
  if len(tensors) < len(file.tensors):
    raise errors.UserError(
        f'{path}: has the same tensor under several names; allowed: one model')
  config = geometry.of_xlmr(file._replace(tensors=tensors), path, asked)
  unused = {name: tensor for name, tensor in tensors.items()
            if name.startswith(_UNUSED)}
  encoder = {name: tensor for name, tensor in tensors.items()
             if name not in unused}
  names = names_lib.xlmr(config)
  shapes = layout.their_shapes(
      names, assembly.shapes_of(config), vocab_size=config.vocab_size)
  shapes[_POSITIONS] = (config.max_positions, config.width)
  shapes[_TYPES] = (1, config.width)
  assembly.check(encoder, path, names, shapes)
  # The rows after the last usable one are fresh.
  positions = np.array(jax.random.normal(
      jax.random.fold_in(key, 1), shapes[_POSITIONS]) * config.width ** -0.5)
  usable = config.max_positions - _SHIFT
  positions[:usable] = (
      tensors[_POSITIONS].read()[_SHIFT:] + tensors[_TYPES].read()[0])
  params, lines = assembly.assemble(
      names, encoder, config, key, {'positions/embedding': positions})
  lines += [
      report.Line('used', _POSITIONS, shapes[_POSITIONS],
                  f'row i is our row i − {_SHIFT}'),
      report.Line('used', _TYPES, shapes[_TYPES], 'added to the positions'),
      report.Line('fresh', 'positions/embedding', (_SHIFT, config.width),
                  f'rows {usable} and {usable + 1}')]
  lines += [report.Line('unused', name, tensor.shape)
            for name, tensor in unused.items()]
  return assembly.Imported(params, config, lines, unused, {})


def _name(key: str) -> str:
  name = _PREFIX.sub('', key)
  for old, new in _OLD_NORM.items():
    if name.endswith(old):
      return name.removesuffix(old) + new
  return name
