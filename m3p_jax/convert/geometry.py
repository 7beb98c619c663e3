"""The geometry of a weight file: from its tensors, checked by what is beside.

Only the number of heads is in no tensor: config.json beside the file, the
file's own options or --config must say it.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
import re
from typing import Any

from input_pipeline import errors
from m3p_jax.convert import files
from m3p_jax.model import config as model_config

ModelConfig = model_config.ModelConfig
# The release always has so many regions, text behind them. Source:
# reference.md, section 9.
_M3P_REGIONS = 100
# Our key → theirs, in config.json beside a file and in its own options.
_M3P_KEYS = {
    'width': ('hidden_size', 'emb_dim'), 'num_layers': ('num_layers',
                                                        'n_layers'),
    'num_heads': ('num_heads', 'n_heads'), 'vocab_size': ('vocab_size',
                                                          'n_words'),
    'max_positions': ('max_positions',), 'num_languages': ('n_langs',),
    'region_feature_dim': ('region_dim',),
    'num_region_classes': ('num_object_classes',)}
_XLMR_KEYS = {
    'width': ('hidden_size',), 'num_layers': ('num_hidden_layers',),
    'num_heads': ('num_attention_heads',), 'vocab_size': ('vocab_size',),
    'mlp_width': ('intermediate_size',),
    'max_positions': ('max_position_embeddings',)}
# What this model computes, by the keys that name it in config.json and in a
# file's own options; where a key is missing, this is what its makers mean.
_COMPUTED = {'hidden_act': ('gelu',), 'position_embedding_type': ('absolute',),
             'gelu_activation': (True,)}
# BERT and RoBERTa have tensors of the same names and shapes, but count
# positions differently or read another tokenizer's ids.
_XLMR_TYPES = ('xlm-roberta',)


def of_m3p(file: files.File, path: pathlib.Path,
           asked: ModelConfig | None, *, complete: bool) -> ModelConfig:
  """Returns the geometry of a microsoft/M3P checkpoint.

  Args:
    file: its content.
    path: for messages.
    asked: of --config; says which optional parts are used. None = without.
    complete: use every part that the file has.

  Raises:
    UserError: a tensor that says the geometry is missing; the sources
      contradict each other; or none says the number of heads.
  """
  tensors = file.tensors
  shape = _shape_reader(tensors, path)
  found = {
      'width': shape('embeddings.weight', 1),
      'vocab_size': shape('embeddings.weight', 0),
      'max_positions': shape('position_embeddings.weight', 0),
      'num_layers': _count(tensors, r'attentions\.(\d+)\.'),
      'mlp_width': shape('ffns.0.lin1.weight', 0),
      'region_feature_dim': shape(
          'image_embeddings.image_embeddings.weight', 1),
      'num_region_classes': shape('pred_obj_layer.proj.weight', 0),
      'num_languages': (shape('cross_lang_embeddings.weight', 0)
                        if 'cross_lang_embeddings.weight' in tensors else 1)}
  base = asked or ModelConfig()
  parts = {'refiner_layers': refiner_layers(tensors),
           'decoder': 'layer_norm15.0.weight' in tensors,
           'caption_match': 'seq_relationship2.weight' in tensors}
  for name, has in parts.items():
    wanted = getattr(base, name)
    if wanted and wanted != has:
      raise errors.UserError(
          f'{path}: model.{name} is {wanted}, but the file has {has}')
    found[name] = has if complete else wanted
  found['layer_norm_epsilon'] = float(
      file.geometry.get('layer_norm_eps', base.layer_norm_epsilon))
  if found['max_positions'] > _M3P_REGIONS:
    found['text_position'] = _M3P_REGIONS
  return _finish(found, file, path, asked, base, _M3P_KEYS)


def of_xlmr(file: files.File, path: pathlib.Path,
            asked: ModelConfig | None) -> ModelConfig:
  """Returns the geometry of a Hugging Face XLM-RoBERTa; see `of_m3p`.

  Its tensors are without the `roberta.` of the whole model.
  """
  shape = _shape_reader(file.tensors, path)
  found = {
      'width': shape('embeddings.word_embeddings.weight', 1),
      'vocab_size': shape('embeddings.word_embeddings.weight', 0),
      'max_positions': shape('embeddings.position_embeddings.weight', 0),
      'num_layers': _count(file.tensors, r'encoder\.layer\.(\d+)\.'),
      'mlp_width': shape('encoder.layer.0.intermediate.dense.weight', 0)}
  _check_said(file.geometry, path.with_name('config.json'),
              {'model_type': _XLMR_TYPES})
  if 'layer_norm_eps' not in file.geometry and asked is None:
    raise errors.UserError(
        f'{path}: nothing says the LayerNorm epsilon; put the config.json of '
        'the model beside the file, or give --config')
  # The parts that XLM-R lacks are fresh: without --config, no language table.
  base = asked or ModelConfig(num_languages=1)
  found['layer_norm_epsilon'] = float(
      file.geometry.get('layer_norm_eps', base.layer_norm_epsilon))
  return _finish(found, file, path, asked, base, _XLMR_KEYS)


def of_volta(file: files.File, path: pathlib.Path,
             asked: ModelConfig | None) -> ModelConfig:
  """Returns the geometry of VOLTA's M3P; see `of_m3p`."""
  shape = _shape_reader(file.tensors, path)
  embeddings = 'bert.embeddings.'
  found = {
      'width': shape(f'{embeddings}word_embeddings.weight', 1),
      'vocab_size': shape(f'{embeddings}word_embeddings.weight', 0),
      'max_positions': shape(f'{embeddings}position_embeddings.weight', 0),
      'region_feature_dim': shape(f'{embeddings}image_embeddings.weight', 1),
      # Attention and feed-forward parts are layers of their own there.
      'num_layers': _count(
          file.tensors, r'bert\.encoder\.layer\.(\d+)\.') // 2,
      'mlp_width': shape('bert.encoder.layer.1.intermediate.dense.weight', 0)}
  base = asked or ModelConfig(num_languages=1, num_region_classes=1600)
  keys = _XLMR_KEYS | {
      'num_layers': ('num_layers',), 'region_feature_dim': ('v_feature_size',),
      'num_heads': ('num_attention_heads', 'num_heads')}
  return _finish(found, file, path, asked, base, keys)


def refiner_layers(tensors: Mapping[str, Any]) -> int:
  """Returns how many layers of the region refiner a file has."""
  return _count(tensors, r'refine_embeddings\.layers\.(\d+)\.')


def _finish(found: dict[str, Any], file: files.File, path: pathlib.Path,
            asked: ModelConfig | None, base: ModelConfig,
            keys: Mapping[str, tuple[str, ...]]) -> ModelConfig:
  """Returns the geometry, once its sources agree."""
  _check_said(file.geometry, path.with_name('config.json'), _COMPUTED)
  _check_said(file.params, f'"params" of {path}', _COMPUTED)
  said = _said(file, path, asked, keys)
  if 'num_heads' not in said:
    raise errors.UserError(
        f'{path}: nothing says the number of heads; put a config.json with '
        '"num_heads" beside the file, or give --config')
  for name, (value, source) in said.items():
    if name in found and found[name] != value:
      raise errors.UserError(
          f'{source} says {name} {value}, but the tensors of {path} have '
          f'{found[name]}')
  found['num_heads'] = said['num_heads'][0]
  try:
    return dataclasses.replace(base, **found)
  except ValueError as error:
    raise errors.UserError(f'{path}: {error}') from error


def _check_said(content: Mapping[str, Any], where: Any,
                allowed: Mapping[str, tuple[Any, ...]]) -> None:
  for key, values in allowed.items():
    if key in content and content[key] not in values:
      raise errors.UserError(
          f'{where}: {key!r} is {content[key]!r}; allowed: '
          f'{", ".join(map(repr, values))}')


def _said(file, path, asked, keys) -> dict[str, tuple[int, str]]:
  """Returns {our key: (value, where)} of the first source that there is."""
  sources = ((file.geometry, str(path.with_name('config.json'))),
             (file.params, f'"params" of {path}'))
  for content, where in sources:
    said = {name: (_number(content[key], key, where), where)
            for name, theirs in keys.items() for key in theirs
            if key in content}
    if 'num_heads' in said:
      return said
  if asked is None:
    return {}
  return {name: (getattr(asked, name), '--config') for name in keys}


def _number(value: Any, key: str, where: str) -> int:
  if not isinstance(value, int):
    raise errors.UserError(
        f'{where}: {key!r} is {value!r}; allowed: a whole number')
  return value


def _shape_reader(tensors, path):
  def shape(key: str, axis: int) -> int:
    if key not in tensors:
      raise errors.UserError(f'{path}: tensor {key!r} is missing')
    if tensors[key].ndim <= axis:
      raise errors.UserError(
          f'{path}: {key!r} has shape {tensors[key].shape}; allowed: '
          'two axes')
    return tensors[key].shape[axis]
  return shape


def _count(tensors: Mapping[str, Any], pattern: str) -> int:
  numbers = [int(match[1]) for match in map(
      re.compile(pattern).match, tensors) if match]
  return 1 + max(numbers, default=-1)
