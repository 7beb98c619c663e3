"""Which tensor of which file is which parameter of ours, and its shape.

Source: reference.md, section 2 (microsoft/M3P: 475 tensors at base size with
100 languages); Hugging Face's XLM-RoBERTa.
"""

from collections.abc import Iterator
import re
from typing import NamedTuple

from m3p_jax.model import config as model_config

ModelConfig = model_config.ModelConfig
Shapes = dict[str, tuple[int, ...]]


class Name(NamedTuple):
  """One tensor of a file.

  Attributes:
    key: its name there.
    path: of our parameter, 'a/b/c'.
    layer: its row where ours is stacked over depth; None = not stacked.
  """
  key: str
  path: str
  layer: int | None = None


# Parts that no forward pass of the release reads (its own spelling).
DEAD = re.compile(
    r'image_embeddings\.image_distbution_embeddings\.|cross_alignment\.|'
    r'latent_transforms\.|original_transforms\.')
# Parts that a file may lack: the config that it was trained with decides.
OPTIONAL = re.compile(
    DEAD.pattern + r'|cross_lang_embeddings\.|refine_embeddings\.|'
    r'encoder_attn\.|layer_norm15\.|pooled_layer2\.|seq_relationship2\.')
# The word table a second time: the head that predicts tokens shares it.
TIED = {'pred_layer.proj.weight': 'embeddings.weight'}

ATTENTION = (('q_lin', 'query'), ('k_lin', 'key'), ('v_lin', 'value'),
              ('out_lin', 'out'))


def _linear(key: str, path: str, layer: int | None = None) -> Iterator[Name]:
  yield Name(f'{key}.weight', f'{path}/kernel', layer)
  yield Name(f'{key}.bias', f'{path}/bias', layer)


def _norm(key: str, path: str, layer: int | None = None) -> Iterator[Name]:
  yield Name(f'{key}.weight', f'{path}/scale', layer)
  yield Name(f'{key}.bias', f'{path}/bias', layer)


def m3p(config: ModelConfig) -> list[Name]:
  """Returns the names of the release's tensors that the geometry uses."""
  names = [
      Name('embeddings.weight', 'tokens/embedding'),
      Name('pred_layer.proj.bias', 'token_bias'),
      Name('position_embeddings.weight', 'positions/embedding'),
      *_norm('layer_norm_emb', 'embedding_norm'),
      *_linear('image_embeddings.image_embeddings',
               'region_embedding/feature'),
      *_linear('image_embeddings.image_location_embeddings',
               'region_embedding/box'),
      *_norm('image_embeddings.LayerNorm', 'region_embedding/norm'),
      *_linear('pooled_layer.dense', 'pooler'),
      *_linear('seq_relationship', 'match'),
      *_linear('mrfr_dense', 'region_regression'),
      *_linear('transformer_obj.dense', 'region_class/dense'),
      *_norm('transformer_obj.LayerNorm', 'region_class/norm'),
      *_linear('pred_obj_layer.proj', 'region_class/out')]
  if config.num_languages > 1:
    names.append(Name('cross_lang_embeddings.weight', 'languages/embedding'))
  if config.caption_match:
    names += [*_linear('pooled_layer2.dense', 'caption_pooler'),
              *_linear('seq_relationship2', 'caption_match')]
  for i in range(config.num_layers):
    names += _m3p_layer(config, i)
  for i in range(config.refiner_layers):
    names += _m3p_refiner_layer(i)
  if config.refiner_layers:
    names += _norm('refine_embeddings.norm', 'refiner/norm')
  return names


def _m3p_layer(config: ModelConfig, i: int) -> Iterator[Name]:
  for theirs, ours in ATTENTION:
    yield from _linear(
        f'attentions.{i}.{theirs}', f'encoder/attention/{ours}', i)
  yield from _norm(f'layer_norm1.{i}', 'encoder/attention_norm', i)
  yield from _linear(f'ffns.{i}.lin1', 'encoder/mlp/inner', i)
  yield from _linear(f'ffns.{i}.lin2', 'encoder/mlp/outer', i)
  yield from _norm(f'layer_norm2.{i}', 'encoder/mlp_norm', i)
  if config.decoder:
    for theirs, ours in ATTENTION:
      yield from _linear(
          f'encoder_attn.{i}.{theirs}', f'encoder/cross_attention/{ours}', i)
    yield from _norm(f'layer_norm15.{i}', 'encoder/cross_attention_norm', i)


def _m3p_refiner_layer(i: int) -> Iterator[Name]:
  key = f'refine_embeddings.layers.{i}'
  for number, ours in enumerate(('query', 'key', 'value')):
    yield from _linear(
        f'{key}.self_attn.linears.{number}', f'refiner/attention_{i}/{ours}')
  yield from _linear(
      f'{key}.self_attn.aoa_layer.0', f'refiner/attention_{i}/gate')
  yield from _norm(f'{key}.sublayer.0.norm', f'refiner/attention_norm_{i}')
  yield from _norm(f'{key}.sublayer.1.norm', f'refiner/mlp_norm_{i}')
  yield from _linear(f'{key}.feed_forward.lin1', f'refiner/mlp_{i}/inner')
  yield from _linear(f'{key}.feed_forward.lin2', f'refiner/mlp_{i}/outer')


def xlmr(config: ModelConfig) -> list[Name]:
  """Returns the names of XLM-RoBERTa's tensors that are read as they are."""
  names = [Name('embeddings.word_embeddings.weight', 'tokens/embedding'),
           *_norm('embeddings.LayerNorm', 'embedding_norm')]
  for i in range(config.num_layers):
    key = f'encoder.layer.{i}'
    for part in ('query', 'key', 'value'):
      names += _linear(
          f'{key}.attention.self.{part}', f'encoder/attention/{part}', i)
    names += [
        *_linear(f'{key}.attention.output.dense', 'encoder/attention/out', i),
        *_norm(f'{key}.attention.output.LayerNorm',
               'encoder/attention_norm', i),
        *_linear(f'{key}.intermediate.dense', 'encoder/mlp/inner', i),
        *_linear(f'{key}.output.dense', 'encoder/mlp/outer', i),
        *_norm(f'{key}.output.LayerNorm', 'encoder/mlp_norm', i)]
  return names


def volta(config: ModelConfig) -> list[Name]:
  """Returns the names of VOLTA's tensors: the parts that both models have.

  VOLTA counts attention and feed-forward parts as layers of their own.
  Source: the key map of VOLTA's conversion (formats.md, 2.22).
  """
  names = [
      Name('bert.embeddings.word_embeddings.weight', 'tokens/embedding'),
      Name('bert.embeddings.position_embeddings.weight',
           'positions/embedding'),
      *_norm('bert.embeddings.LayerNorm', 'embedding_norm'),
      *_linear('bert.embeddings.image_embeddings', 'region_embedding/feature'),
      *_linear('bert.embeddings.image_location_embeddings',
               'region_embedding/box'),
      *_norm('bert.embeddings.v_LayerNorm', 'region_embedding/norm'),
      *_linear('bert.t_pooler.dense', 'pooler')]
  for i in range(config.num_layers):
    attention, mlp = (f'bert.encoder.layer.{2 * i + part}' for part in (0, 1))
    for part in ('query', 'key', 'value'):
      names += _linear(
          f'{attention}.attention_self.{part}', f'encoder/attention/{part}', i)
    names += [
        *_linear(f'{attention}.attention_output.dense',
                 'encoder/attention/out', i),
        *_norm(f'{attention}.attention_output.LayerNorm',
               'encoder/attention_norm', i),
        *_linear(f'{mlp}.intermediate.dense', 'encoder/mlp/inner', i),
        *_linear(f'{mlp}.output.dense', 'encoder/mlp/outer', i),
        *_norm(f'{mlp}.output.LayerNorm', 'encoder/mlp_norm', i)]
  return names


def volta_typo(config: ModelConfig) -> tuple[str, str]:
  """Returns (key in files made with VOLTA's map, the key that it means)."""
  last = config.num_layers - 1
  return (f'bert.encoder.layer.{last}.attention_output.dense.weight',
          f'bert.encoder.layer.{2 * last}.attention_output.dense.weight')


class _Shapes:
  """Collects the shapes of one state dict, part by part."""

  def __init__(self, width: int):
    self.found: Shapes = {}
    self._width = width

  def table(self, key: str, rows: int) -> None:
    self.found[f'{key}.weight'] = (rows, self._width)

  def linear(self, key: str, out: int, inputs: int) -> None:
    self.found[f'{key}.weight'] = (out, inputs)
    self.found[f'{key}.bias'] = (out,)

  def norm(self, key: str) -> None:
    self.found[f'{key}.weight'] = self.found[f'{key}.bias'] = (self._width,)

  def attention(self, key: str) -> None:
    for theirs, _ in ATTENTION:
      self.linear(f'{key}.{theirs}', self._width, self._width)


def m3p_shapes(config: ModelConfig, *, refiner_layers: int = 6) -> Shapes:
  """Returns the shapes of the release's full strict set, dead parts included.

  Args:
    config: geometry.
    refiner_layers: of the set, whether the geometry uses them or not.
  """
  shapes, width = _Shapes(config.width), config.width
  shapes.table('position_embeddings', config.max_positions)
  shapes.table('embeddings', config.vocab_size)
  if config.num_languages > 1:
    shapes.table('cross_lang_embeddings', config.num_languages)
  shapes.norm('layer_norm_emb')
  image = 'image_embeddings'
  shapes.linear(f'{image}.image_embeddings', width, config.region_feature_dim)
  shapes.linear(f'{image}.image_distbution_embeddings', width,
                config.num_region_classes)
  shapes.linear(f'{image}.image_location_embeddings', width, 5)
  shapes.norm(f'{image}.LayerNorm')
  _add_refiner(shapes, config, refiner_layers)
  for i in range(config.num_layers):
    shapes.attention(f'attentions.{i}')
    shapes.norm(f'layer_norm1.{i}')
    shapes.linear(f'ffns.{i}.lin1', config.mlp_width, width)
    shapes.linear(f'ffns.{i}.lin2', width, config.mlp_width)
    shapes.norm(f'layer_norm2.{i}')
    shapes.norm(f'layer_norm15.{i}')
    shapes.attention(f'encoder_attn.{i}')
  _add_dead(shapes, width)
  for key in ('pooled_layer', 'pooled_layer2'):
    shapes.linear(f'{key}.dense', width, width)
  for key in ('seq_relationship', 'seq_relationship2'):
    shapes.linear(key, 1, width)
  shapes.linear('mrfr_dense', config.region_feature_dim, width)
  shapes.linear('transformer_obj.dense', width, width)
  shapes.norm('transformer_obj.LayerNorm')
  shapes.linear('pred_layer.proj', config.vocab_size, width)
  shapes.linear('pred_obj_layer.proj', config.num_region_classes, width)
  return shapes.found


def _add_refiner(shapes: _Shapes, config: ModelConfig, layers: int) -> None:
  width, mlp = config.width, config.mlp_width
  for i in range(layers):
    key = f'refine_embeddings.layers.{i}'
    for number in range(3):
      shapes.linear(f'{key}.self_attn.linears.{number}', width, width)
    shapes.linear(f'{key}.self_attn.aoa_layer.0', 2 * width, 2 * width)
    shapes.linear(f'{key}.feed_forward.lin1', mlp, width)
    shapes.linear(f'{key}.feed_forward.lin2', width, mlp)
    shapes.norm(f'{key}.sublayer.0.norm')
    shapes.norm(f'{key}.sublayer.1.norm')
  if layers:
    shapes.norm('refine_embeddings.norm')


def _add_dead(shapes: _Shapes, width: int) -> None:
  for part in ('att_weight_c', 'att_weight_q', 'att_weight_cq'):
    shapes.linear(f'cross_alignment.{part}', 1, width)
  shapes.linear('cross_alignment.align_output', width, width)
  shapes.norm('cross_alignment.layer_norm')
  for i in range(2):
    key = f'latent_transforms.{i}'
    shapes.linear(f'{key}.x_to_mu', width, width)
    shapes.linear(f'{key}.x_to_logvar', width, width)
    shapes.linear(f'{key}.out_dense', width, 2 * width)
    key = f'original_transforms.{i}'
    shapes.linear(f'{key}.dense', width, width)
    shapes.linear(f'{key}.dense_mu', width, width)
    shapes.norm(f'{key}.LayerNorm')
