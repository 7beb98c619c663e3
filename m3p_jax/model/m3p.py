"""M3P: one Transformer over regions and text, and its heads.

Letters: B rows, L text length, R regions, T=R+L, P predictions a row, D width,
F region feature, V padded vocabulary, C region classes, E shared space.
Source: reference.md, sections 2 and 3.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import config as model_config
from m3p_jax.model import encoded as encoded_lib
from m3p_jax.model import layers
from m3p_jax.model import pooling
from m3p_jax.model import region_refiner
from m3p_jax.model import regions as regions_lib
from m3p_jax.model import token_head

# Factors by which cosines are multiplied: at first, and at most (CLIP's).
MAX_LOGIT_SCALE = 100.0
FIRST_LOGIT_SCALE = 20.0


class M3P(nn.Module):
  """The model; every method is usable inside `nn.apply` on a bound module.

  Where `deterministic` is left None, dropout runs if the caller gave a
  'dropout' key.
  """
  config: model_config.ModelConfig

  def setup(self):
    c = self.config
    width = c.width
    self.tokens = layers.Table(c.padded_vocab_size, width, 'vocab')
    self.positions = layers.Table(c.max_positions, width, 'positions')
    if c.num_languages > 1:
      self.languages = layers.Table(c.num_languages, width, 'languages')
    self.embedding_norm = layers.LayerNorm(c.layer_norm_epsilon)
    self.region_embedding = regions_lib.RegionEmbedding(c)
    if c.refiner_layers:
      self.refiner = region_refiner.RegionRefiner(c)
    layer = layers.EncoderLayer
    if c.remat == 'full':
      layer = nn.remat(layer, static_argnums=(3,), prevent_cse=False)
    self.encoder = nn.scan(
        layer, variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(nn.broadcast, nn.broadcast), length=c.num_layers,
        # XLA's CPU loops run bfloat16 layers at half the speed of unrolled
        # ones (45 against 90 rows/s at E5's geometry).
        unroll=c.num_layers if jax.default_backend() == 'cpu' else 1,
        metadata_params={nn.PARTITION_NAME: 'layers'})(c)
    self.pooler = layers.Einsum(
        'BD,DX->BX', (width, width), ('embed', 'mlp'), fan_in=width)
    self.match = layers.Einsum(
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
    self.dropout = nn.Dropout(c.dropout)

  def __call__(self, batch: batch_lib.Batch) -> jax.Array:
    """Touches every parameter, so that the tree does not depend on tasks."""
    encoded = self.encode(batch, deterministic=True)
    outputs = (
        self.token_logits(encoded.text_BLD[:, :1]),
        self.region_class_logits(encoded.regions_BRD[:, :1]),
        self.region_features(encoded.regions_BRD[:, :1]),
        self.match_logits(encoded),
        self.embed_images(batch.regions, deterministic=True),
        self.embed_texts(batch.token_ids_BL, batch.text_mask_BL,
                         batch.language_B, deterministic=True),
        self.logit_scale())
    return jnp.stack([x.astype(jnp.float32).sum() for x in outputs]).sum()

  def encode(self, batch: batch_lib.Batch, *,
             deterministic: bool | None = None) -> encoded_lib.Encoded:
    """Returns hidden states: joint, or text-only where there are no regions.

    Args:
      batch: rows; `regions` None encodes the text alone.
      deterministic: no dropout; None = dropout if there is a key for it.
    """
    deterministic = self._resolve(deterministic)
    if batch.regions is None:
      return encoded_lib.Encoded(None, self._encode_text(
          batch.token_ids_BL, batch.text_mask_BL, batch.language_B,
          deterministic))
    regions_BRD = self._region_hidden(batch.regions, deterministic)
    num_regions = regions_BRD.shape[1]
    hidden_BTD = jnp.concatenate(
        [regions_BRD, self._word_vectors(batch.token_ids_BL)], axis=1)
    mask_BT = jnp.concatenate(
        [batch.regions.mask_BR, batch.text_mask_BL], axis=1)
    hidden_BTD = self._run_with_positions(hidden_BTD, mask_BT, deterministic)
    regions_BRD, text_BLD = jnp.split(hidden_BTD, [num_regions], axis=1)
    if self.config.match_head == 'first':
      return encoded_lib.Encoded(regions_BRD, text_BLD)
    return encoded_lib.Encoded(
        regions_BRD, text_BLD, self._image_vector(regions_BRD, batch.regions)
        * self._text_vector(text_BLD, batch.text_mask_BL))

  def encode_images(self, regions: batch_lib.Regions,
                    language_B: jax.Array | None = None, *,
                    deterministic: bool | None = None) -> jax.Array:
    """Returns image-only hidden states [B, R, D]: no positions, no first LN."""
    deterministic = self._resolve(deterministic)
    hidden_BRD = self._region_hidden(regions, deterministic)
    hidden_BRD = self._add_language(hidden_BRD, language_B)
    hidden_BRD = self.dropout(hidden_BRD, deterministic=deterministic)
    hidden_BRD = hidden_BRD * regions.mask_BR[..., None].astype(
        hidden_BRD.dtype)
    return self.encoder(hidden_BRD, regions.mask_BR, deterministic)[0]

  def embed_images(self, regions: batch_lib.Regions, *,
                   deterministic: bool | None = None) -> jax.Array:
    """Returns unit vectors [B, E], float32, of the pictures alone."""
    return self._image_vector(
        self.encode_images(regions, deterministic=deterministic), regions)

  def embed_regions(self, regions: batch_lib.Regions) -> jax.Array:
    """Returns unit vectors [B, E] of embedded regions, without any layer."""
    return pooling.normalise(self._pooled_regions(regions))

  def embed_texts(self, token_ids_BL: jax.Array, text_mask_BL: jax.Array,
                  language_B: jax.Array | None = None, *,
                  deterministic: bool | None = None) -> jax.Array:
    """Returns unit vectors [B, E], float32, of the captions alone."""
    return self._text_vector(self._encode_text(
        token_ids_BL, text_mask_BL, language_B, self._resolve(deterministic)),
        text_mask_BL)

  def token_logits(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, P, V]; the table's padding rows are -inf."""
    return token_head.logits(
        hidden_BPD, self.tokens.embedding, self.token_bias,
        vocab_size=self.config.vocab_size)

  def token_nats(self, hidden_BPD: jax.Array, target_BP: jax.Array,
                 ) -> tuple[jax.Array, jax.Array]:
    """Returns the targets' nats [B, P], float32, and likeliest tokens."""
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

  def logit_scale(self) -> jax.Array:
    """Returns the learned factor on cosines, a positive float32 scalar."""
    return jnp.minimum(jnp.exp(self.log_scale), MAX_LOGIT_SCALE)

  def _resolve(self, deterministic: bool | None) -> bool:
    if deterministic is None:
      return not self.has_rng('dropout')
    return deterministic

  def _word_vectors(self, token_ids_BL):
    return self.tokens(token_ids_BL).astype(self.config.activation_dtype)

  def _add_language(self, hidden_BTD, language_B):
    if self.config.num_languages == 1 or language_B is None:
      return hidden_BTD
    return hidden_BTD + self.languages(language_B)[:, None].astype(
        hidden_BTD.dtype)

  def _image_vector(self, hidden_BRD, regions):
    pooled_BD = pooling.mean_pool(hidden_BRD, regions.mask_BR)
    return pooling.normalise(
        self.image_projection(pooled_BD) + self._pooled_regions(regions))

  def _text_vector(self, hidden_BLD, text_mask_BL):
    return pooling.normalise(self.text_projection(
        pooling.mean_pool(hidden_BLD, text_mask_BL)))

  def _pooled_regions(self, regions):
    return self.region_projection(
        pooling.mean_pool(self.region_embedding(regions), regions.mask_BR))

  def _region_hidden(self, regions, deterministic):
    hidden_BRD = self.region_embedding(regions)
    hidden_BRD = self.dropout(hidden_BRD, deterministic=deterministic)
    if self.config.refiner_layers:
      hidden_BRD = self.refiner(
          hidden_BRD, regions.mask_BR, deterministic=deterministic)
    return hidden_BRD

  def _encode_text(self, token_ids_BL, text_mask_BL, language_B,
                   deterministic):
    hidden_BLD = self._add_language(
        self._word_vectors(token_ids_BL), language_B)
    return self._run_with_positions(hidden_BLD, text_mask_BL, deterministic)

  def _run_with_positions(self, hidden_BTD, mask_BT, deterministic):
    position_TD = self.positions(jnp.arange(hidden_BTD.shape[1]))
    hidden_BTD = hidden_BTD + position_TD[None].astype(hidden_BTD.dtype)
    hidden_BTD = self.embedding_norm(hidden_BTD)
    hidden_BTD = self.dropout(hidden_BTD, deterministic=deterministic)
    hidden_BTD = hidden_BTD * mask_BT[..., None].astype(hidden_BTD.dtype)
    return self.encoder(hidden_BTD, mask_BT, deterministic)[0]
