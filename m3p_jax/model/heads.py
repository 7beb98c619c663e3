"""What reads the Transformer's hidden states: the heads of M3P.

Letters: B rows, L text length, P predictions a row, D width, F region feature,
V padded vocabulary, C region classes, E shared space.
Source: reference.md, sections 2 and 3; the shared space is ours.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import encoded as encoded_lib
from m3p_jax.model import layers
from m3p_jax.model import lean_token_head
from m3p_jax.model import pooling
from m3p_jax.model import regions as regions_lib
from m3p_jax.model import token_head

# Factors by which cosines are multiplied: at first, and at most (CLIP's).
MAX_LOGIT_SCALE = 100.0
FIRST_LOGIT_SCALE = 20.0


class Heads(nn.Module):
  """The part of M3P above its layers; the embeddings are the subclass's."""
  config: model_config.ModelConfig

  def _setup_heads(self):
    c = self.config
    width = c.width
    self.pooler = layers.Einsum(
        'BD,DX->BX', (width, width), ('embed', 'mlp'), fan_in=width)
    self.match = layers.Einsum(
        'BD,DN->BN', (width, 1), ('embed', 'one'), fan_in=width)
    if c.caption_match:
      self.caption_pooler = layers.Einsum(
          'BD,DX->BX', (width, width), ('embed', 'mlp'), fan_in=width)
      self.caption_match = layers.Einsum(
          'BD,DN->BN', (width, 1), ('embed', 'one'), fan_in=width)
    if c.match_head == 'first+product':
      self.match_product = self.param(
          'match_product', nn.with_logical_partitioning(
              nn.initializers.ones, ('shared',)),
          (c.embedding_dim,), jnp.float32)
    self.token_bias = self.param(
        'token_bias', nn.with_logical_partitioning(
            nn.initializers.zeros, ('vocab',)),
        (c.padded_vocab_size,), jnp.float32)
    self.region_regression = layers.Einsum(
        'BPD,DF->BPF', (width, c.region_feature_dim),
        ('embed', 'region_feature'), fan_in=width)
    self.region_class = regions_lib.RegionClassHead(c)

    def projection(kernel_init):
      return layers.Einsum(
          'BD,DE->BE', (width, c.embedding_dim), ('embed', 'shared'),
          fan_in=width, kernel_init=kernel_init)

    # Text vectors begin as the mean of the last hidden states, which E5 has
    # already aligned across languages. A picture begins as its embedded
    # regions alone; what the layers make of them is learned on top.
    self.text_projection = projection(layers.identity_init)
    self.region_projection = projection(layers.identity_init)
    self.image_projection = projection(nn.initializers.zeros)
    self.log_scale = self.param(
        'log_scale', nn.with_logical_partitioning(
            nn.initializers.constant(jnp.log(FIRST_LOGIT_SCALE)), ()),
        (), jnp.float32)

  def token_logits(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, P, V]; the table's padding rows are -inf."""
    return token_head.logits(
        hidden_BPD, self.tokens.embedding, self.token_bias,
        vocab_size=self.config.vocab_size)

  def token_nats(self, hidden_BPD: jax.Array, target_BP: jax.Array,
                 ) -> tuple[jax.Array, jax.Array]:
    """Returns the targets' nats [B, P], float32, and likeliest tokens."""
    if self.config.remat == 'lean':
      nats_N, likeliest_N = lean_token_head.nats(
          hidden_BPD.reshape(-1, hidden_BPD.shape[-1]),
          self.tokens.embedding, self.token_bias, target_BP.ravel(),
          self.config.vocab_size)
      return (nats_N.reshape(target_BP.shape),
              likeliest_N.reshape(target_BP.shape))
    return token_head.nats(
        hidden_BPD, self.tokens.embedding, self.token_bias, target_BP,
        self.config.vocab_size)

  def region_class_logits(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, P, C] of the regions' classes."""
    return self.region_class(hidden_BPD).astype(jnp.float32)

  def region_features(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns the predicted un-normalised features [B, P, F], float32."""
    return self.region_regression(hidden_BPD).astype(jnp.float32)

  def match_logits(self, encoded: encoded_lib.Encoded) -> jax.Array:
    """Returns [B] float32: does the caption belong to the picture.

    Read from position 0, the first region; `config.match_head` may add the
    product of the two vectors (ViLBERT's match head reads that alone).
    """
    pooled_BD = jnp.tanh(self.pooler(encoded.regions_BRD[:, 0]))
    logits_B = self.match(pooled_BD)[:, 0].astype(jnp.float32)
    if encoded.product_BE is None:
      return logits_B
    return logits_B + FIRST_LOGIT_SCALE * jnp.einsum(
        'BE,E->B', encoded.product_BE, self.match_product)

  def caption_match_logits(self, text_BLD: jax.Array) -> jax.Array:
    """Returns [B] float32: do two captions in one text mean the same.

    The release's head for pairs of captions in two languages; read from
    position 0. Needs `config.caption_match`.
    """
    pooled_BD = jnp.tanh(self.caption_pooler(text_BLD[:, 0]))
    return self.caption_match(pooled_BD)[:, 0].astype(jnp.float32)

  def logit_scale(self) -> jax.Array:
    """Returns the learned factor on cosines, a positive float32 scalar."""
    return jnp.minimum(jnp.exp(self.log_scale), MAX_LOGIT_SCALE)

  def pooled_regions(self, regions: batch_lib.Regions) -> jax.Array:
    """Returns [B, E]: the pictures' embedded regions alone, in float32."""
    return self.region_projection(
        pooling.mean_pool(self.region_embedding(regions), regions.mask_BR))

  def match_inputs(self, regions_BRD: jax.Array, text_BLD: jax.Array,
                   mask_BR: jax.Array, text_mask_BL: jax.Array,
                   pooled_BE: jax.Array) -> jax.Array:
    """Returns [B, E] float32: the picture's unit vector times the caption's.

    Args:
      regions_BRD: last joint states.
      text_BLD: last joint states.
      mask_BR: False where a region is padding.
      text_mask_BL: False at padding.
      pooled_BE: `pooled_regions` of the pictures.
    """
    return (self._image_vector(regions_BRD, mask_BR, pooled_BE)
            * self._text_vector(text_BLD, text_mask_BL))

  def _image_vector(self, hidden_BRD, mask_BR, pooled_BE):
    pooled_BD = pooling.mean_pool(hidden_BRD, mask_BR)
    return pooling.normalise(self.image_projection(pooled_BD) + pooled_BE)

  def _text_vector(self, hidden_BLD, text_mask_BL):
    return pooling.normalise(self.text_projection(
        pooling.mean_pool(hidden_BLD, text_mask_BL)))
