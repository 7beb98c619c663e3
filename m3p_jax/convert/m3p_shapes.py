"""The release's full strict set of tensors, and their shapes.

Source: reference.md, section 2: 475 tensors at base size with 100 languages.
"""

from m3p_jax.convert import names
from m3p_jax.model import config as model_config

ModelConfig = model_config.ModelConfig
Shapes = names.Shapes


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
    for theirs, _ in names.ATTENTION:
      self.linear(f'{key}.{theirs}', self._width, self._width)


def of(config: ModelConfig, *, refiner_layers: int = 6) -> Shapes:
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
