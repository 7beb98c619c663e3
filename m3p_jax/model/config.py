"""The geometry of an M3P model, and what a run chooses beside it."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import jax

# Processors that multiply bfloat16 faster than float32, as Linux names it.
_BFLOAT16_FLAGS = {'amx_bf16', 'avx512_bf16'}

# XLA shards the word table only if its rows divide by the mesh.
VOCAB_MULTIPLE = 128

DTYPES = ('auto', 'float32', 'bfloat16')
# What a layer keeps for its backward pass, and version 1's names for it.
REMATS = {'none': 'none', 'projections': 'projections', 'input': 'input',
          'lean': 'projections', 'dots': 'projections', 'full': 'input'}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Geometry of one M3P; the keys of a checkpoint's `config.json`.

  Attributes:
    vocab_size: rows of the word table that mean something (XLM-R: 250,002).
    width: D, width of every hidden state.
    num_heads: H, attention heads; divides `width`.
    mlp_width: M, inner width of the feed-forward part.
    num_layers: Transformer layers.
    max_positions: learned positions; regions + text must not exceed it.
    text_position: of the first token behind regions, however many a picture
      has; 0 = right behind those that its rows are padded to (version 1).
    region_feature_dim: F, numbers in one region's feature.
    num_region_classes: C, detector classes with background (0).
    num_languages: rows of the language table; 1 = there is none.
    embedding_dim: E, width of the dual encoder's shared space.
    layer_norm_epsilon: of every LayerNorm.
    refiner_layers: layers of the region refiner; 0 = off.
    normalise_regions: whether features and boxes are divided by their norms
      before they are embedded; False where they come so.
    match_head: what the match score reads: 'first' is M3P's, the last state
      of position 0; 'first+product' adds the product of the caption's vector
      and the picture's, both read from the joint states.
    caption_match: whether there is the head that matches two captions.
    decoder: whether the layers can attend to encoded rows, to write text.
    joint_memory: whether a writer reads a picture in one row with a text, an
      empty one where there is none, and beside it the language to write in;
      False is M3P's way, a picture alone.
    heads: (task, file of `model/heads/`, numbers out, states in) of each head
      that a task brought.
  """
  vocab_size: int = 250_002
  width: int = 768
  num_heads: int = 12
  mlp_width: int = 3072
  num_layers: int = 12
  max_positions: int = 514
  text_position: int = 0
  region_feature_dim: int = 2048
  num_region_classes: int = 1601
  num_languages: int = 100
  embedding_dim: int = 384
  layer_norm_epsilon: float = 1e-12
  refiner_layers: int = 0
  normalise_regions: bool = True
  match_head: str = 'first'
  caption_match: bool = False
  decoder: bool = False
  joint_memory: bool = False
  heads: tuple[tuple[str, str, int, int], ...] = ()

  def __post_init__(self):
    # JSON has lists.
    object.__setattr__(self, 'heads', tuple(map(tuple, self.heads)))
    if self.width % self.num_heads:
      raise ValueError(
          f'model.num_heads must divide model.width: {self.width} % '
          f'{self.num_heads} = {self.width % self.num_heads}')
    _check_choice('match_head', self.match_head, ('first', 'first+product'))

  @property
  def head_size(self) -> int:
    return self.width // self.num_heads

  def text_start(self, num_regions: int) -> int:
    """Returns the position of the first token behind so many regions.

    Raises:
      ValueError: they reach beyond it.
    """
    if self.text_position and num_regions > self.text_position:
      raise ValueError(
          f'pictures have {num_regions} regions; allowed: '
          f'{self.text_position}, where text begins (model.text_position)')
    return self.text_position or num_regions

  def text_room(self, num_regions: int) -> int:
    """Returns how many positions text has; beside no regions, all of them.

    Raises:
      ValueError: see `text_start`.
    """
    start = self.text_start(num_regions) if num_regions else 0
    return self.max_positions - start

  @property
  def padded_vocab_size(self) -> int:
    """Rows of the word table in memory, a multiple of `VOCAB_MULTIPLE`."""
    return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


# Parts that fresh parameters add to weights which have none of them, and the
# value of such weights.
ADDABLE = {'caption_match': False, 'decoder': False, 'joint_memory': False,
           'num_languages': 1}


def join_heads(one: Any, other: Any) -> tuple[tuple[str, str, int, int], ...]:
  """Returns the heads of both, by name.

  Raises:
    ValueError: they have one name for two heads.
  """
  found: dict[str, Any] = {}
  for head in (*one, *other):
    if found.setdefault(head[0], tuple(head)) != tuple(head):
      raise ValueError(
          f'the head of the task {head[0]!r} is {tuple(head[1:])} (file, '
          f'numbers out, states in); allowed: {found[head[0]][1:]}, which '
          'another has by that name')
  return tuple(sorted(found.values()))


@dataclasses.dataclass(frozen=True)
class Options:
  """What a run chooses and no parameter depends on.

  Attributes:
    dropout: share of activations dropped in training.
    attention_dropout: share of attention weights dropped in training.
    region_dropout: share of the numbers of region features dropped in training,
      the same ones of all regions of a picture.
    dtype: of activations, 'float32' or 'bfloat16'.
    remat: what a layer keeps for its backward pass: 'none' = all that
      autodiff asks for, 'projections' = its matrix products, 'input' = what
      enters it; the rest is computed again.
  """
  dropout: float = 0.0
  attention_dropout: float = 0.0
  region_dropout: float = 0.0
  dtype: str = 'float32'
  remat: str = 'none'

  def __post_init__(self):
    _check_choice('dtype', self.dtype, DTYPES[1:])
    _check_choice('remat', self.remat, REMATS)
    object.__setattr__(self, 'remat', REMATS[self.remat])


# Keys of a config's model section that are no geometry. Version 1 saved them
# with it, and had a `platform`.
OPTION_KEYS = tuple(field.name for field in dataclasses.fields(Options))
_FORMER_KEYS = (*OPTION_KEYS, 'platform')


def geometry(model: Mapping[str, Any]) -> ModelConfig:
  """Returns the geometry in a config's model section, or a `config.json`."""
  return ModelConfig(**{key: value for key, value in model.items()
                        if key not in _FORMER_KEYS})


def options(model: Mapping[str, Any], platform: str | None = None) -> Options:
  """Returns the options in a config's model section.

  Args:
    model: the section.
    platform: 'cpu', 'gpu' or 'tpu': decides the dtype 'auto'; None = that of
      this process.
  """
  _check_choice('dtype', model['dtype'], DTYPES)
  found = {key: model[key] for key in OPTION_KEYS}
  return Options(**found | {'dtype': number_format(found['dtype'], platform)})


def number_format(dtype: str, platform: str | None = None) -> str:
  """Returns a dtype with 'auto' resolved; `platform` as in `options`."""
  if dtype != 'auto':
    return dtype
  return fast_dtype(platform or jax.default_backend())


def fast_dtype(platform: str) -> str:
  """Returns 'bfloat16' where 'cpu', 'gpu' or 'tpu' multiplies it natively."""
  if platform != 'cpu':
    return 'bfloat16'
  try:
    flags = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return 'float32'
  return 'bfloat16' if _BFLOAT16_FLAGS & set(flags.split()) else 'float32'


def _check_choice(name, value, allowed):
  if value not in allowed:
    raise ValueError(
        f'model.{name} is {value!r}; allowed: {", ".join(allowed)}')
