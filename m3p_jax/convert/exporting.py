"""Our checkpoints as files for other programs."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax import checkpoint as checkpoint_lib
from m3p_jax.convert import files
from m3p_jax.convert import geometry
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p

ModelConfig = model_config.ModelConfig
KINDS = ('m3p', 'volta', 'safetensors', 'stablehlo')
# Layers of the region refiner in the release's strict set.
_REFINER_LAYERS = 6


class Source(NamedTuple):
  """A checkpoint of ours.

  Attributes:
    params: float32 by path 'a/b/c'.
    config: geometry.
    manifest: what the weights read.
    aside: tensors that the import kept, which no part of the model reads.
    prefix: of the keys of the imported file.
  """
  params: dict[str, np.ndarray]
  config: ModelConfig
  manifest: dict[str, Any]
  aside: files.Tensors
  prefix: str


def load(checkpoint: str | pathlib.Path) -> Source:
  """Returns a checkpoint's content.

  Raises:
    UserError: there is none, or it is damaged.
  """
  params, config, manifest = checkpoint_lib.load(checkpoint)
  path = checkpoint_lib.find(checkpoint)[0]
  aside: files.Tensors = {}
  prefix = 'module.'
  if (path / importing.REPORT).exists():
    prefix = json.loads((path / importing.REPORT).read_text())['prefix']
  if (path / importing.ASIDE).exists():
    aside = files.read_safetensors(path / importing.ASIDE)
  return Source(layout.flatten(jax.device_get(params)), config, manifest,
                aside, prefix)


def write(kind: str, source: Source, path: pathlib.Path) -> list[layout.Line]:
  """Writes one file, or folder for 'safetensors'; returns what became of each.
  """
  if kind == 'm3p':
    return _write_m3p(source, path)
  if kind == 'volta':
    tensors, lines = volta_tensors(source)
    files.write_torch(path, tensors)
    return lines
  if kind == 'safetensors':
    _write_safetensors(source, path)
  else:
    _write_stablehlo(source, path)
  return [layout.Line('used', key, value.shape)
          for key, value in source.params.items()]


def m3p_tensors(source: Source) -> tuple[files.Tensors, list[layout.Line]]:
  """Returns the release's full strict set of tensors, and the report.

  What the model has is exact; what the import kept aside comes back; the rest
  is initialised as the release does.
  """
  config, kept = source.config, source.aside
  names = names_lib.m3p(config)
  shapes = layout.m3p_shapes(config, refiner_layers=(
      config.refiner_layers or geometry.refiner_layers(kept)
      or _REFINER_LAYERS))
  tensors = layout.unstack(names, source.params, shapes)
  lines = [layout.Line('used', key, tensors[key].shape) for key in tensors]
  rng = np.random.default_rng(0)
  for key, shape in shapes.items():
    if key in tensors:
      continue
    if key in names_lib.TIED:
      # The same array: both names share one storage in the file.
      tensors[key] = tensors[names_lib.TIED[key]]
      lines.append(layout.Line('used', key, shape,
                               f'is {names_lib.TIED[key]!r}'))
    elif key in kept and kept[key].shape == shape:
      tensors[key] = kept[key]
      lines.append(layout.Line('unused', key, shape, 'from the import'))
    else:
      tensors[key] = _initial(key, shapes, rng)
      lines.append(layout.Line('fresh', key, shape))
  return tensors, lines + _left_out(source, names)


def _initial(key: str, shapes: layout.Shapes,
             rng: np.random.Generator) -> np.ndarray:
  """Returns first values as the release draws them."""
  layer, _, kind = key.rpartition('.')
  weight = shapes[f'{layer}.weight']
  if len(weight) == 1:  # LayerNorm.
    return np.full(shapes[key], kind == 'weight', np.float32)
  bound = weight[1] ** -0.5
  return rng.uniform(-bound, bound, shapes[key]).astype(np.float32)


def _left_out(source: Source, names: list[names_lib.Name]) -> list[layout.Line]:
  written = {name.path for name in names}
  return [layout.Line('left out', path, value.shape)
          for path, value in source.params.items() if path not in written]


def _write_m3p(source: Source, path: pathlib.Path) -> list[layout.Line]:
  tensors, lines = m3p_tensors(source)
  c = source.config
  files.write_torch(
      path, {source.prefix + key: value for key, value in tensors.items()},
      {'emb_dim': c.width, 'n_layers': c.num_layers, 'n_heads': c.num_heads,
       'n_words': c.vocab_size, 'n_langs': c.num_languages})
  return lines


def volta_tensors(source: Source) -> tuple[files.Tensors, list[layout.Line]]:
  """Returns VOLTA's tensors of the parts that both have, and the report."""
  names = names_lib.volta(source.config)
  shapes = layout.their_shapes(
      names, {key: value.shape for key, value in source.params.items()},
      vocab_size=source.config.vocab_size)
  tensors = layout.unstack(names, source.params, shapes)
  return tensors, [layout.Line('used', key, value.shape)
                   for key, value in tensors.items()] + _left_out(source, names)


def _write_safetensors(source: Source, path: pathlib.Path) -> None:
  path.mkdir()
  files.write_safetensors(
      path / 'model.safetensors', source.params, {'format': 'm3p_jax'})
  for name, content in (('config.json', dataclasses.asdict(source.config)),
                        ('manifest.json', source.manifest)):
    (path / name).write_text(json.dumps(content, indent=2) + '\n')


def score_function(source: Source):
  """Returns score(token ids, text mask, features, boxes, region mask) -> [B].

  Match logits of the joint encoder, float32; parameters are constants.
  """
  params = layout.nested(source.params)

  def score(token_ids_BL, text_mask_BL, features_BRF, boxes_BRG, mask_BR):
    zeros_B = jnp.zeros(token_ids_BL.shape[:1], jnp.int32)
    batch = batch_lib.Batch(
        token_ids_BL, text_mask_BL, zeros_B, batch_lib.Regions(
            zeros_B, features_BRF, boxes_BRG,
            jnp.zeros(mask_BR.shape, jnp.int32), mask_BR))
    return nn.apply(
        lambda module: module.match_logits(
            module.encode(batch, deterministic=True)),
        m3p.M3P(source.config))({'params': params})

  return score


def _write_stablehlo(source: Source, path: pathlib.Path) -> None:
  from jax import export  # Slow to import.
  positions = source.config.text_position  # 0 = behind any number of regions.
  rows, length, regions = export.symbolic_shape(
      'b, l, r', constraints=[f'r <= {positions}'] if positions else ())
  shapes = ((rows, length), (rows, length),
            (rows, regions, source.config.region_feature_dim),
            (rows, regions, 5), (rows, regions))
  dtypes = (jnp.int32, bool, jnp.float32, jnp.float32, bool)
  exported = export.export(
      jax.jit(score_function(source)), platforms=('cpu', 'tpu'))(*(
          jax.ShapeDtypeStruct(shape, dtype)
          for shape, dtype in zip(shapes, dtypes, strict=True)))
  path.write_bytes(exported.serialize())
