"""Runs a weight file on stored inputs and compares with stored outputs.

Letters: B rows, L text length, R regions, D width, F region feature,
G=5 box, P labelled tokens.
Source: reference.md, section 9, says what each array is.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any, NamedTuple
import zipfile

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from m3p_jax.convert import names as names_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from m3p_jax.objectives import negatives

KINDS = ('m3p', 'xlmr')
Arrays = Mapping[str, np.ndarray]
_LOSSES = ('loss_mlm', 'loss_mrm', 'loss_mrfr', 'loss_vlm')


class Line(NamedTuple):
  """One stored array against ours.

  Attributes:
    name: of the array.
    absolute: greatest absolute difference; NaN without a counterpart.
    relative: greatest difference as a share of the stored array's largest
      entry.
    tolerance: what is allowed, as `kind` says.
    kind: 'absolute' or 'relative'.
  """
  name: str
  absolute: float
  relative: float
  tolerance: float
  kind: str

  @property
  def passes(self) -> bool:
    """Whether the difference is allowed; NaN is not."""
    return getattr(self, self.kind) <= self.tolerance

  def __str__(self) -> str:
    if np.isnan(self.absolute):
      return f'FAIL {self.name}: no counterpart of its shape'
    return (f'{"ok  " if self.passes else "FAIL"} {self.name}: absolute '
            f'{self.absolute:.1e}, relative {self.relative:.1e}, allowed '
            f'{self.tolerance:.0e} {self.kind}')


def _compare(name: str, ours: Any, theirs: np.ndarray,
             mask_BL: np.ndarray | None, dtype: str) -> Line:
  """Returns the line of one array; `mask_BL` None = all positions count."""
  tolerance, kind = 1e-5, 'absolute'
  if dtype != 'float32':
    # Eight bits of a number, through layers and back.
    tolerance, kind = 0.1 if name.startswith('grad') else 0.05, 'relative'
  elif name.startswith('loss_'):
    kind = 'relative'
  elif name.startswith('grad'):
    tolerance, kind = 1e-4, 'relative'
  if ours is None or np.shape(ours) != theirs.shape:
    return Line(name, np.nan, np.nan, tolerance, kind)
  difference = np.abs(np.asarray(ours, np.float64) - theirs)
  if mask_BL is not None:
    difference = difference[mask_BL.astype(bool)]
  largest = float(np.abs(theirs).max(initial=0.0)) or 1.0
  absolute = float(difference.max(initial=0.0))
  return Line(name, absolute, absolute / largest, tolerance, kind)


def run(kind: str, checkpoint: str | pathlib.Path, vectors: str | pathlib.Path,
        dtype: str = 'float32') -> list[Line]:
  """Returns a line for each array of `vectors`/outputs.npz.

  Activations are of `dtype`.

  Raises:
    UserError: a file is missing or cannot be meant.
  """
  inputs, outputs = (_load(pathlib.Path(vectors) / f'{name}.npz')
                     for name in ('inputs', 'outputs'))
  # The stored inputs are what the release's loader gives: normalised there.
  imported = importing.read(kind, checkpoint, complete=True)
  imported = imported._replace(config=dataclasses.replace(
      imported.config, normalise_regions=False))
  options = model_config.Options(dtype=dtype)
  try:
    # A TPU else multiplies float32 as bfloat16.
    with jax.default_matmul_precision(
        'highest' if dtype == 'float32' else 'default'):
      ours = (_m3p if kind == 'm3p' else _xlmr)(imported, inputs, options)
  except KeyError as error:
    raise errors.UserError(f'{vectors}/inputs.npz lacks {error}') from error
  mask_BL = inputs['text_mask'] if kind == 'xlmr' else None
  return [_compare(name, ours.get(name), theirs, mask_BL, dtype)
          for name, theirs in outputs.items()]


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise errors.UserError(f'{path}: no such file')
  try:
    with np.load(path, allow_pickle=False) as archive:
      return dict(archive)
  except (ValueError, EOFError, zipfile.BadZipFile) as error:
    raise errors.UserError(f'{path}: {error}') from error


def _xlmr(imported: importing.Imported, inputs: Arrays,
          options: model_config.Options) -> dict[str, Any]:
  ids_BL, mask_BL = inputs['token_ids'], inputs['text_mask'].astype(bool)

  def embed(module):
    words_BLD = module.tokens(ids_BL)
    positions_LD = module.positions(jnp.arange(ids_BL.shape[1]))
    return module.embedding_norm(words_BLD + positions_LD)

  def encode(module):
    return module.encode(batch_lib.Batch(
        ids_BL, mask_BL, np.zeros(len(ids_BL), np.int32)),
                         deterministic=True).text_BLD

  return {'embedding_output': _call(embed, imported, options),
          'last_hidden_state': _call(encode, imported, options)}


def _call(function: Callable[[m3p.M3P], Any], imported: importing.Imported,
          options: model_config.Options) -> Any:
  """Returns what a function of a bound model gives, jitted."""
  return jax.jit(nn.apply(function, m3p.M3P(imported.config)))(
      {'params': imported.params})


def _masked(inputs: Arrays) -> batch_lib.Batch:
  """Returns the masked rows of inputs.npz."""
  ids_BL = inputs['masked_token_ids'].astype(np.int32)
  features_BRF = inputs['masked_region_features']
  rows, num_regions = features_BRF.shape[:2]
  regions = batch_lib.Regions(
      image_id_B=np.arange(rows, dtype=np.int32), features_BRF=features_BRF,
      boxes_BRG=inputs['region_locations'],
      class_ids_BR=np.ones((rows, num_regions), np.int32),
      mask_BR=np.ones((rows, num_regions), bool))
  mask_BL = np.arange(ids_BL.shape[1])[None] < inputs['text_lengths'][:, None]
  # As the release runs without language ids: no row of the table is added.
  return batch_lib.Batch(ids_BL, mask_BL, None, regions)


def _m3p(imported: importing.Imported, inputs: Arrays,
         options: model_config.Options) -> dict[str, Any]:
  rows, labels_BL = _masked(inputs), inputs['mlm_labels']
  # The vectors are of a run in which every picture had all its regions.
  imported = imported._replace(
      config=dataclasses.replace(imported.config, text_position=0))
  config = dataclasses.replace(imported.config, refiner_layers=0)

  def joint(encoded):
    return jnp.concatenate([encoded.regions_BRD, encoded.text_BLD], axis=1)

  def passes(module):
    encoded = module.encode(rows, deterministic=True)
    text_BLD = module.encode(rows._replace(regions=None),
                             deterministic=True).text_BLD
    image_BRD = module.encode_images(rows.regions, deterministic=True)
    # Time-major: the position outside, the row inside.
    time_L, row_L = np.nonzero(labels_BL.T != -1)
    found = {
        'joint_hidden': joint(encoded),
        'mlm_logits': module.token_logits(
            encoded.text_BLD[row_L, time_L][None])[0, :, :config.vocab_size],
        'match_logits': module.match_logits(encoded),
        'text_hidden': text_BLD, 'image_hidden': image_BRD,
        'loss_xmlm': _token_loss(module, text_BLD, labels_BL)}
    if config.decoder:
      found['decoder_hidden'] = module.decode(
          inputs['token_ids'].astype(np.int32), rows.text_mask_BL,
          (image_BRD, rows.regions.mask_BR), deterministic=True)
    return found | _losses(module, encoded, inputs)

  def total(params):
    found = nn.apply(passes, m3p.M3P(config, options))({'params': params})
    return sum(found[name] for name in _LOSSES), found

  gradients, outputs = jax.jit(jax.grad(total, has_aux=True))(imported.params)
  if imported.config.refiner_layers:
    outputs['joint_hidden_refined'] = _call(
        lambda module: joint(module.encode(rows, deterministic=True)),
        imported, options)
  outputs['grad_global_norm'] = optax.tree.norm(gradients)
  by_key = layout.unstack(
      names_lib.m3p(config), layout.flatten(jax.device_get(gradients)),
      layout.m3p_shapes(config, refiner_layers=0))
  return outputs | {f'grad/{key}': value for key, value in by_key.items()}


def _token_loss(module, hidden_BLD, labels_BL) -> jax.Array:
  """Returns the mean nats of the labelled tokens."""
  is_labelled_BL = labels_BL != -1
  nats_BL, _ = module.token_nats(hidden_BLD, np.maximum(labels_BL, 0))
  return (nats_BL * is_labelled_BL).sum() / is_labelled_BL.sum()


def _losses(module, encoded, inputs: Arrays) -> dict[str, jax.Array]:
  """Returns the four joint losses of stored labels."""
  labels_BR = inputs['object_labels']
  is_labelled_BR = labels_BR != -1
  count = is_labelled_BR.sum()
  nats_BR = optax.softmax_cross_entropy_with_integer_labels(
      module.region_class_logits(encoded.regions_BRD),
      np.maximum(labels_BR, 0))
  error_BR = jnp.square(
      module.region_features(encoded.regions_BRD)
      - inputs['region_features']).mean(-1)
  return {
      'loss_mlm': _token_loss(
          module, encoded.text_BLD, inputs['mlm_labels']),
      'loss_mrm': (nats_BR * is_labelled_BR).sum() / count,
      'loss_mrfr': (error_BR * is_labelled_BR).sum() / count,
      'loss_vlm': negatives.sigmoid_cross_entropy(
          module.match_logits(encoded),
          jnp.asarray(inputs['match_labels'])).mean()}
