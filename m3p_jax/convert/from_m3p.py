"""microsoft/M3P's checkpoints. Source: reference.md, section 2."""

import pathlib
import re

import jax
import numpy as np

from input_pipeline import errors
from input_pipeline.tensor_files import stored_array
from m3p_jax.convert import assembly
from m3p_jax.convert import geometry
from m3p_jax.convert import m3p_shapes
from m3p_jax.convert import names as names_lib
from m3p_jax.convert import report
from m3p_jax.convert import tensors as tensors_lib
from m3p_jax.model import config as model_config

_OPTIONAL = re.compile(
    f'{names_lib.OPTIONAL.pattern}|{"|".join(map(re.escape, names_lib.TIED))}')


def _is_same(a: stored_array.StoredArray,
             b: stored_array.StoredArray) -> bool:
  """Returns whether two tensors of one shape have the same numbers."""
  return a == b or (a.dtype == b.dtype and all(
      np.array_equal(a_N, b_N, equal_nan=True)
      for a_N, b_N in zip(a.pieces(), b.pieces(), strict=True)))


def read(file: tensors_lib.File, path: pathlib.Path, key: jax.Array, *,
         asked: model_config.ModelConfig | None,
         complete: bool) -> assembly.Imported:
  """Returns the file as a checkpoint of ours; see `importing.read`."""
  config = geometry.of_m3p(file, path, asked, complete=complete)
  tensors = file.tensors
  names = names_lib.m3p(config)
  assembly.check(
      tensors, path, names, m3p_shapes.of(
          config, refiner_layers=geometry.refiner_layers(tensors)),
      optional=_OPTIONAL)
  for copy, original in names_lib.TIED.items():
    if copy in tensors and not _is_same(tensors[copy], tensors[original]):
      raise errors.UserError(
          f'{path}: {copy!r} differs from {original!r}; the release ties them')
  params, lines = assembly.assemble(names, tensors, config, key)
  used = {name.key for name in names} | set(names_lib.TIED)
  unused = {key: tensor for key, tensor in tensors.items() if key not in used}
  lines += [report.Line('used', copy, tensors[copy].shape, f'is {original!r}')
            for copy, original in names_lib.TIED.items() if copy in tensors]
  lines += [report.Line('unused', key, tensor.shape)
            for key, tensor in unused.items()]
  return assembly.Imported(
      params, config, lines, unused, file.params, file.prefix)
