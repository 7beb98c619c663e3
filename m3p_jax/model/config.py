"""The geometry of an M3P model, and the number format a machine is fast at."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp

# Processors that multiply bfloat16 faster than float32, as Linux names it.
_BFLOAT16_FLAGS = {'amx_bf16', 'avx512_bf16'}

# XLA shards the word table only if its rows divide by the mesh.
VOCAB_MULTIPLE = 128


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
    region_feature_dim: F, numbers in one region's feature.
    num_region_classes: C, detector classes with background (0).
    num_languages: rows of the language table; 1 = there is none.
    embedding_dim: E, width of the dual encoder's shared space.
    dropout: share of activations dropped in training.
    attention_dropout: share of attention weights dropped in training.
    layer_norm_epsilon: of every LayerNorm.
    refiner_layers: layers of the region refiner; 0 = off.
    normalise_regions: whether features and boxes are divided by their norms
      before they are embedded; False where they come so.
    match_head: what the match score reads: 'first' is M3P's, the last state
      of position 0; 'first+product' adds the product of the caption's vector
      and the picture's, both read from the joint states.
    caption_match: whether there is the head that matches two captions.
    decoder: whether the layers can attend to encoded rows, to write text.
    dtype: of activations: 'float32', 'bfloat16' or 'auto'.
    remat: what a layer keeps for its backward pass: 'none' = everything,
      'lean' = its matrix products alone, by backward passes of our own,
      'dots' = the same by `jax.checkpoint`, 'full' = its input. GELU and
      LayerNorm always keep their inputs alone, attention does on a CPU.
    platform: what the step is compiled for: 'cpu', 'gpu' or 'tpu'; 'auto' =
      the devices of this process. Decides no parameter.
  """
  vocab_size: int = 250_002
  width: int = 768
  num_heads: int = 12
  mlp_width: int = 3072
  num_layers: int = 12
  max_positions: int = 514
  region_feature_dim: int = 2048
  num_region_classes: int = 1601
  num_languages: int = 100
  embedding_dim: int = 384
  dropout: float = 0.1
  attention_dropout: float = 0.1
  layer_norm_epsilon: float = 1e-12
  refiner_layers: int = 0
  normalise_regions: bool = True
  match_head: str = 'first'
  caption_match: bool = False
  decoder: bool = False
  dtype: str = 'auto'
  remat: str = 'none'
  platform: str = 'auto'

  def __post_init__(self):
    if self.width % self.num_heads:
      raise ValueError(
          f'model.num_heads must divide model.width: {self.width} % '
          f'{self.num_heads} = {self.width % self.num_heads}')
    for name, allowed in (('match_head', ('first', 'first+product')),
                          ('dtype', ('auto', 'float32', 'bfloat16')),
                          ('remat', ('none', 'lean', 'dots', 'full')),
                          ('platform', ('auto', 'cpu', 'gpu', 'tpu'))):
      if getattr(self, name) not in allowed:
        raise ValueError(
            f'model.{name} is {getattr(self, name)!r}; allowed: '
            f'{", ".join(allowed)}')

  @property
  def head_size(self) -> int:
    return self.width // self.num_heads

  @property
  def padded_vocab_size(self) -> int:
    """Rows of the word table in memory, a multiple of `VOCAB_MULTIPLE`."""
    return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

  @property
  def activation_dtype(self) -> jnp.dtype:
    """The dtype of activations on this machine, 'auto' resolved."""
    name = (fast_dtype(self.resolved_platform) if self.dtype == 'auto'
            else self.dtype)
    return jnp.dtype(name)

  @property
  def resolved_platform(self) -> str:
    """'cpu', 'gpu' or 'tpu': `platform` with 'auto' resolved."""
    return (jax.default_backend() if self.platform == 'auto'
            else self.platform)

  @property
  def unroll(self) -> int:
    """Layers compiled one by one before a loop goes on with the next.

    XLA's CPU compiler makes bfloat16 loops slower than unrolled layers (E5's
    geometry, 128 rows a step, AVX-512 BF16: 3.7 s as a loop, 3.3 by fours, 3.0
    unrolled), and at base size they take 6.1 GB by sixes where unrolled ones
    take 4.3: it converts what all layers keep to float32 before the loop.
    Float32 loops are as fast, and compile in a quarter of the time.
    """
    is_slow_loop = (self.resolved_platform == 'cpu'
                    and self.activation_dtype == jnp.bfloat16)
    return self.num_layers if is_slow_loop else 1


def fast_dtype(platform: str) -> str:
  """Returns 'bfloat16' where the machine multiplies it natively."""
  if platform != 'cpu':
    return 'bfloat16'
  try:
    flags = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return 'float32'
  return 'bfloat16' if _BFLOAT16_FLAGS & set(flags.split()) else 'float32'
