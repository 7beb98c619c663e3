"""VOLTA's M3P checkpoints (IGLUE): the parts that both models have.

Source: formats.md, 2.22. VOLTA has no decoder, language table or pre-training
heads; its own task heads are kept aside.
"""

import pathlib
import re

import jax

from m3p_jax.convert import assembly
from m3p_jax.convert import geometry
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.convert import report
from m3p_jax.convert import tensors as tensors_lib
from m3p_jax.model import config as model_config

# Task heads, its own poolers, M3P's dead map of class distributions, and
# second names of shared weights.
_UNUSED = re.compile(
    r'(clfs_dict|cls|cls_dict|fusion|dropout)\.|bert\.(v_pooler|pooler)\.|'
    r'bert\.embeddings\.image_distbution_embeddings\.|'
    r'bert\.encoder\..*\.v_(query|key|value|dense|LayerNorm)\.|'
    r'.*\.position_ids$')


def read(file: tensors_lib.File, path: pathlib.Path, key: jax.Array, *,
         asked: model_config.ModelConfig | None) -> assembly.Imported:
  """Returns the file as a checkpoint of ours; see `importing.read`."""
  config = geometry.of_volta(file, path, asked)
  tensors = dict(file.tensors)
  wrong, meant = names_lib.volta_typo(config)
  if wrong in tensors and meant not in tensors:
    tensors[meant] = tensors.pop(wrong)
  unused = {name: tensor for name, tensor in tensors.items()
            if _UNUSED.match(name)}
  shared = {name: tensor for name, tensor in tensors.items()
            if name not in unused}
  names = names_lib.volta(config)
  assembly.check(shared, path, names, layout.their_shapes(
      names, assembly.shapes_of(config), vocab_size=config.vocab_size))
  params, lines = assembly.assemble(names, shared, config, key)
  lines += [report.Line('unused', name, tensor.shape)
            for name, tensor in unused.items()]
  return assembly.Imported(params, config, lines, unused, {})
