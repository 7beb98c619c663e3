"""Parts of the model that weights lack, added to them when a run starts.

What the weights have stays bit for bit; what they lack is fresh, drawn as that
of a model which begins with nothing, or comes from the file that they were
imported from, where the import had kept it aside.
"""

from collections.abc import Collection, Mapping
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from input_pipeline import paths
from m3p_jax.convert import files
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.model import config as model_config

ModelConfig = model_config.ModelConfig
_LANGUAGES = 'languages/embedding'


def geometry(saved: ModelConfig, asked: ModelConfig, *,
             needs: Mapping[str, Any],
             given: Collection[str]) -> ModelConfig:
  """Returns the geometry of weights, with parts that they lack.

  Args:
    saved: of the weights.
    asked: of the config.
    needs: of the config's tasks, see `config.needs`.
    given: dotted keys of the command line.

  Raises:
    ValueError: a task has a head that is another in the weights.
  """
  added: dict[str, Any] = {'heads': model_config.join_heads(
      saved.heads, asked.heads)}
  for name, none in model_config.ADDABLE.items():
    if getattr(saved, name) == none:
      added[name] = needs.get(name, none)
      # The languages of a config's file may be those of its first weights.
      if none is False or f'model.{name}' in given:
        added[name] = max(added[name], getattr(asked, name))
  return dataclasses.replace(saved, **added)


def describe(config: ModelConfig, saved: ModelConfig,
             path: paths.Path) -> tuple[str, ...]:
  """Returns a line for each group of parameters that `saved` lacks.

  `path` is that of the weights.
  """
  shapes, aside = layout.shapes_of(config), _aside(config, saved, path)
  groups: dict[str, list[str]] = {}
  for name in sorted(_lacking(config, saved)):
    group = '/'.join(name.split('/')[:1 + name.startswith('encoder/')])
    groups.setdefault(group, []).append(name)
  return tuple(
      f'{group}: {sum(math.prod(shapes[name]) for name in names):,} numbers'
      + (', kept aside by the import' if aside.keys() >= set(names) else '')
      for group, names in groups.items())


def add(params: Mapping[str, Any], saved: ModelConfig, config: ModelConfig, *,
        path: paths.Path, shardings: Mapping[str, Any],
        key: jax.Array) -> dict[str, Any]:
  """Returns all parameters of `config`, those of `saved` as they are.

  Args:
    params: of the weights.
    saved: their geometry.
    config: the geometry wanted, see `geometry`.
    path: of the weights.
    shardings: of all parameters.
    key: of what is fresh.
  """
  if not _lacking(config, saved):
    return dict(params)
  known, split = layout.flatten(params), layout.flatten(shardings)
  added = _aside(config, saved, path)
  added |= layout.fresh(config, known.keys() | added.keys(), key)
  if _LANGUAGES in added:
    # At first each language is read as it was without a table.
    added[_LANGUAGES] = np.zeros(added[_LANGUAGES].shape, np.float32)
  return layout.nested(known | {
      name: jax.device_put(value, split[name])
      for name, value in added.items()})


def _lacking(config: ModelConfig, saved: ModelConfig) -> set[str]:
  return layout.shapes_of(config).keys() - layout.shapes_of(saved).keys()


def _aside(config: ModelConfig, saved: ModelConfig,
           path: paths.Path) -> dict[str, Any]:
  """Returns what `saved` lacks and its import had kept aside, by our paths."""
  lacking = _lacking(config, saved)
  if not lacking or not (path / importing.ASIDE).exists():
    return {}
  return dict(layout.stack(
      [name for name in names_lib.m3p(config) if name.path in lacking],
      files.read_safetensors(path / importing.ASIDE),
      layout.shapes_of(config)))
