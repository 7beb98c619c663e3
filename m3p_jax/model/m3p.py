"""M3P: one Transformer over regions and text, and its heads.

Letters: B rows, L text length, R regions, T=R+L, P predictions a row, D width,
F region feature, V padded vocabulary, C region classes, E shared space.
Source: reference.md, sections 2 and 3.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.model import dropout
from m3p_jax.model import encoded as encoded_lib
from m3p_jax.model import heads
from m3p_jax.model import layers
from m3p_jax.model import pooling
from m3p_jax.model import region_refiner
from m3p_jax.model import regions as regions_lib
from m3p_jax.model import transformer

# What `jax.checkpoint` keeps of a layer; None = its input alone.
_CHECKPOINT_POLICIES = {
    'full': None,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


class M3P(heads.Heads):
  """The model; every method is usable inside `nn.apply` on a bound module.

  Where `deterministic` is left None, dropout runs if the caller gave a
  'dropout' key.
  """

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
    layer = transformer.EncoderLayer
    if c.remat in _CHECKPOINT_POLICIES:
      layer = nn.remat(layer, prevent_cse=False,
                       policy=_CHECKPOINT_POLICIES[c.remat])
    self.encoder = nn.scan(
        layer, variable_axes={'params': 0, transformer.ATTENTION: 0},
        split_rngs={'params': True}, in_axes=(nn.broadcast, 0, nn.broadcast),
        length=c.num_layers, unroll=c.unroll,
        metadata_params={nn.PARTITION_NAME: 'layers'})(c)
    self._setup_heads()

  def __call__(self, batch: batch_lib.Batch) -> jax.Array:
    """Touches every parameter, so that the tree does not depend on tasks."""
    encoded = self.encode(batch, deterministic=True)
    outputs = [
        self.token_logits(encoded.text_BLD[:, :1]),
        self.region_class_logits(encoded.regions_BRD[:, :1]),
        self.region_features(encoded.regions_BRD[:, :1]),
        self.match_logits(encoded),
        self.embed_images(batch.regions, deterministic=True),
        self.embed_texts(batch.token_ids_BL, batch.text_mask_BL,
                         batch.language_B, deterministic=True),
        self.logit_scale()]
    if self.config.caption_match:
      outputs.append(self.caption_match_logits(encoded.text_BLD))
    if self.config.decoder:
      memory = transformer.Memory(encoded.regions_BRD, batch.regions.mask_BR)
      outputs.append(self.decode(
          batch.token_ids_BL, batch.text_mask_BL, memory, deterministic=True))
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
    return encoded_lib.Encoded(regions_BRD, text_BLD, self.match_inputs(
        regions_BRD, text_BLD, batch.regions.mask_BR, batch.text_mask_BL,
        self.pooled_regions(batch.regions)))

  def place_regions(self, regions: batch_lib.Regions,
                    position_BR: jax.Array) -> jax.Array:
    """Returns what the joint pass's first layer reads of pictures [B, R, D].

    Args:
      regions: rows; in any order and number, for attention has none.
      position_BR: int, where each region stands in its picture.
    """
    return self._place(self._region_hidden(regions, True), regions.mask_BR,
                       position_BR, True)

  def place_text(self, token_ids_BL: jax.Array, text_mask_BL: jax.Array, *,
                 start: int) -> jax.Array:
    """Returns what the joint pass's first layer reads of captions [B, L, D].

    Args:
      token_ids_BL: the captions.
      text_mask_BL: False at padding.
      start: position of the first token: how many regions stand before it.
    """
    position_1L = start + jnp.arange(token_ids_BL.shape[1])[None]
    return self._place(self._word_vectors(token_ids_BL), text_mask_BL,
                       position_1L, True)

  def decode(self, token_ids_BL: jax.Array, text_mask_BL: jax.Array,
             memory: transformer.Memory, language_B: jax.Array | None = None, *,
             deterministic: bool | None = None) -> jax.Array:
    """Returns hidden states [B, L, D] of text that is written left to right.

    The encoder's own layers with causal attention, and attention to what was
    encoded between the two halves of each. Needs `config.decoder`.

    Args:
      token_ids_BL: the text so far, `<s>` first.
      text_mask_BL: False at padding.
      memory: an encoded picture, or picture and source text.
      language_B: index of each row's language.
      deterministic: no dropout; None = dropout if there is a key for it.
    """
    return self._encode_text(token_ids_BL, text_mask_BL, language_B,
                             self._resolve(deterministic), memory)

  def encode_images(self, regions: batch_lib.Regions,
                    language_B: jax.Array | None = None, *,
                    deterministic: bool | None = None) -> jax.Array:
    """Returns image-only hidden states [B, R, D]: no positions, no first LN."""
    deterministic = self._resolve(deterministic)
    hidden_BRD = self._region_hidden(regions, deterministic)
    hidden_BRD = self._add_language(hidden_BRD, language_B)
    hidden_BRD = self._drop(hidden_BRD, deterministic)
    hidden_BRD = hidden_BRD * regions.mask_BR[..., None].astype(
        hidden_BRD.dtype)
    return self._run_layers(hidden_BRD, regions.mask_BR, deterministic)

  def embed_images(self, regions: batch_lib.Regions, *,
                   deterministic: bool | None = None) -> jax.Array:
    """Returns unit vectors [B, E], float32, of the pictures alone."""
    return self._image_vector(
        self.encode_images(regions, deterministic=deterministic),
        regions.mask_BR, self.pooled_regions(regions))

  def embed_regions(self, regions: batch_lib.Regions) -> jax.Array:
    """Returns unit vectors [B, E] of embedded regions, without any layer."""
    return pooling.normalise(self.pooled_regions(regions))

  def embed_texts(self, token_ids_BL: jax.Array, text_mask_BL: jax.Array,
                  language_B: jax.Array | None = None, *,
                  deterministic: bool | None = None) -> jax.Array:
    """Returns unit vectors [B, E], float32, of the captions alone."""
    return self._text_vector(self._encode_text(
        token_ids_BL, text_mask_BL, language_B, self._resolve(deterministic)),
        text_mask_BL)

  def _resolve(self, deterministic: bool | None) -> bool:
    if deterministic is None:
      return not self.has_rng('dropout')
    return deterministic

  def _seeds(self, deterministic: bool, *shape: int) -> jax.Array | None:
    """Returns seeds [*shape, 2] of dropout; None = nothing is dropped."""
    c = self.config
    if deterministic or not (c.dropout or c.attention_dropout):
      return None
    return dropout.seeds(self.make_rng('dropout'), *shape)

  def _drop(self, hidden_BTD, deterministic):
    return dropout.drop(
        hidden_BTD, self._seeds(deterministic), self.config.dropout)

  def _word_vectors(self, token_ids_BL):
    return self.tokens(token_ids_BL).astype(self.config.activation_dtype)

  def _add_language(self, hidden_BTD, language_B):
    if self.config.num_languages == 1 or language_B is None:
      return hidden_BTD
    return hidden_BTD + self.languages(language_B)[:, None].astype(
        hidden_BTD.dtype)

  def _region_hidden(self, regions, deterministic):
    hidden_BRD = self.region_embedding(regions)
    hidden_BRD = self._drop(hidden_BRD, deterministic)
    if self.config.refiner_layers:
      hidden_BRD = self.refiner(hidden_BRD, regions.mask_BR, self._seeds(
          deterministic, self.config.refiner_layers,
          region_refiner.NUM_SEEDS))
    return hidden_BRD

  def _encode_text(self, token_ids_BL, text_mask_BL, language_B,
                   deterministic, memory=None):
    hidden_BLD = self._add_language(
        self._word_vectors(token_ids_BL), language_B)
    return self._run_with_positions(
        hidden_BLD, text_mask_BL, deterministic, memory)

  def _run_with_positions(self, hidden_BTD, mask_BT, deterministic,
                          memory=None):
    position_1T = jnp.arange(hidden_BTD.shape[1])[None]
    hidden_BTD = self._place(hidden_BTD, mask_BT, position_1T, deterministic)
    return self._run_layers(hidden_BTD, mask_BT, deterministic, memory)

  def _run_layers(self, hidden_BTD, mask_BT, deterministic, memory=None):
    seeds = self._seeds(
        deterministic, self.config.num_layers, transformer.NUM_SEEDS)
    return self.encoder(hidden_BTD, mask_BT, seeds, memory)[0]

  def _place(self, hidden_BTD, mask_BT, position_BT, deterministic):
    """Returns what enters the first layer; `position_BT` may be one row."""
    hidden_BTD = hidden_BTD + self.positions(position_BT).astype(
        hidden_BTD.dtype)
    hidden_BTD = self.embedding_norm(hidden_BTD)
    hidden_BTD = self._drop(hidden_BTD, deterministic)
    hidden_BTD = hidden_BTD * mask_BT[..., None].astype(hidden_BTD.dtype)
    return sharding.constrain(hidden_BTD, *transformer.HIDDEN_AXES)
