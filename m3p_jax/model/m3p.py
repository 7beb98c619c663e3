"""M3P: one Transformer over regions and text, and its heads.

Letters: B rows, L text length, R regions, T=R+L, S length attended to, P
positions read of a row, D width, F region feature, V padded vocabulary, C
region classes, E shared space.
Source: reference.md, sections 2 and 3; the shared space is ours.
"""

import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.model import config as model_config
from m3p_jax.model import heads as heads_lib
from m3p_jax.model import regions as regions_lib
from m3p_jax.model import transformer
from m3p_jax.model import vocabulary

# Factors by which cosines are multiplied: at first, and at most (CLIP's).
MAX_LOGIT_SCALE = 100.0
FIRST_LOGIT_SCALE = 20.0


class Encoded(NamedTuple):
  """What the layers made of the rows.

  Attributes:
    regions_BRD: last hidden states, 0 at padding; None without regions.
    text_BLD: last hidden states, 0 at padding.
    read_BPD: those of the positions asked for, in place of all others.
    product_BE: float32, the picture's unit vector times the caption's; None
      where the match head does not read it.
  """
  regions_BRD: jax.Array | None = None
  text_BLD: jax.Array | None = None
  read_BPD: jax.Array | None = None
  product_BE: jax.Array | None = None


class M3P(nn.Module):
  """The model; every method is usable inside `nn.apply` on a bound module.

  Where `deterministic` is left None, dropout runs if the caller gave a
  'dropout' key.
  """
  config: model_config.ModelConfig
  options: model_config.Options = model_config.Options()

  def setup(self):
    c, o = self.config, self.options
    self.tokens = transformer.Table(c.padded_vocab_size, c.width, 'words')
    self.positions = transformer.Table(c.max_positions, c.width, 'positions')
    if c.num_languages > 1:
      self.languages = transformer.Table(
          c.num_languages, c.width, 'languages')
    self.embedding_norm = transformer.layer_norm(
        c.layer_norm_epsilon, o.dtype)
    self.region_embedding = regions_lib.RegionEmbedding(c, o)
    if c.refiner_layers:
      self.refiner = regions_lib.RegionRefiner(c, o)
    self.drop = nn.Dropout(o.dropout)
    self.encoder = transformer.stacked_encoder(
        c, o, is_initializing=self.is_initializing())
    self._setup_heads()

  def _setup_heads(self):
    c = self.config

    def linear(out, axis, kernel_init=None, equation='BD,DX->BX'):
      return transformer.Linear(
          equation, (c.width, out), ('embed', axis), kernel_init)

    self.pooler, self.match = linear(c.width, 'mlp'), linear(1, 'one')
    if c.caption_match:
      self.caption_pooler = linear(c.width, 'mlp')
      self.caption_match = linear(1, 'one')
    self.heads = {
        head[0]: heads_lib.make(heads_lib.Kind(*head), c, self.options)
        for head in c.heads}
    if c.match_head == 'first+product':
      self.match_product = self._vector('match_product', c.embedding_dim,
                                        'shared', nn.initializers.ones)
    self.token_bias = self._vector('token_bias', c.padded_vocab_size, 'vocab',
                                   nn.initializers.zeros)
    self.region_regression = linear(
        c.region_feature_dim, 'region_feature', equation='BPD,DF->BPF')
    self.region_class = regions_lib.RegionClassHead(c)
    # Text vectors begin as the mean of the last hidden states, which E5 has
    # already aligned across languages. A picture begins as its embedded
    # regions alone; what the layers make of them is learned on top.
    identity = lambda key, shape, dtype: jnp.eye(
        shape[0], shape[1], dtype=dtype)
    self.text_projection = linear(c.embedding_dim, 'shared', identity)
    self.region_projection = linear(c.embedding_dim, 'shared', identity)
    self.image_projection = linear(
        c.embedding_dim, 'shared', nn.initializers.zeros)
    self.log_scale = self.param(
        'log_scale', nn.with_logical_partitioning(
            nn.initializers.constant(jnp.log(FIRST_LOGIT_SCALE)), ()),
        (), jnp.float32)

  def _vector(self, name, size, axis, init):
    return self.param(name, nn.with_logical_partitioning(init, (axis,)),
                      (size,), jnp.float32)

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
        self.logit_scale(),
        *(head(jnp.zeros((1, head.inputs, self.config.width)))
          for head in self.heads.values())]
    if self.config.caption_match:
      outputs.append(self.caption_match_logits(encoded.regions_BRD))
    if self.config.decoder:
      memory = encoded.regions_BRD, batch.regions.mask_BR
      outputs.append(self.decode(
          batch.token_ids_BL, batch.text_mask_BL, memory, deterministic=True))
    return jnp.stack([x.astype(jnp.float32).sum() for x in outputs]).sum()

  # What the layers read, and what they make of it.

  def encode(self, batch: batch_lib.Batch, *, read: jax.Array | None = None,
             text_position: int | None = None,
             deterministic: bool | None = None) -> Encoded:
    """Returns hidden states: joint, or text-only where there are no regions.

    Args:
      batch: rows; `regions` None encodes the text alone.
      read: int [B, P], positions in the row, regions first: the last layer
        computes these alone. None = all.
      text_position: of the first token where there are regions; None = what
        the geometry says. A picture whose padding is cut off needs to say where
        it ended.
      deterministic: no dropout; None = dropout if there is a key for it.
    """
    deterministic = self._resolve(deterministic)
    position_T = jnp.arange(batch.token_ids_BL.shape[1])
    if batch.regions is None:
      hidden_BTD, mask_BT = self._embed_text(
          batch.token_ids_BL, batch.language_B), batch.text_mask_BL
    else:
      if text_position is None:
        text_position = self.config.text_start(batch.num_regions)
      position_T = jnp.concatenate(
          [jnp.arange(batch.num_regions), text_position + position_T])
      embedded_BRD = self._embed_regions(batch.regions, deterministic)
      hidden_BTD = jnp.concatenate(
          [embedded_BRD, self._embed_words(batch.token_ids_BL)], axis=1)
      mask_BT = jnp.concatenate(
          [batch.regions.mask_BR, batch.text_mask_BL], axis=1)
    hidden_BTD = self._run_layers(
        self._place(hidden_BTD, mask_BT, position_T, deterministic), mask_BT,
        read=read, deterministic=deterministic)
    if read is not None:
      return Encoded(read_BPD=hidden_BTD)
    if batch.regions is None:
      return Encoded(text_BLD=hidden_BTD)
    regions_BRD, text_BLD = jnp.split(hidden_BTD, [batch.num_regions], axis=1)
    if self.config.match_head == 'first':
      return Encoded(regions_BRD, text_BLD)
    return Encoded(regions_BRD, text_BLD, product_BE=(
        self._image_vector(regions_BRD, embedded_BRD, batch.regions.mask_BR)
        * self._text_vector(text_BLD, batch.text_mask_BL)))

  def decode(self, token_ids_BL: jax.Array, text_mask_BL: jax.Array,
             memory: tuple[jax.Array, jax.Array],
             language_B: jax.Array | None = None, *,
             position: jax.Array | None = None,
             deterministic: bool | None = None) -> jax.Array:
    """Returns hidden states [B, L, D] of text that is written left to right.

    The encoder's own layers with causal attention, and attention to what was
    encoded between the two halves of each. Needs `config.decoder`.

    Args:
      token_ids_BL: the text so far, `<s>` first.
      text_mask_BL: False at padding.
      memory: states [B, S, D] of an encoded picture, or of picture and source
        text, and their mask [B, S].
      language_B: index of each row's language.
      position: of the one token of each row that is given, where those before
        it are in the mutable collection `transformer.CACHE`; the mask is then
        that of the whole text, up to and with this token.
      deterministic: no dropout; None = dropout if there is a key for it.
    """
    deterministic = self._resolve(deterministic)
    position_L = (jnp.arange(token_ids_BL.shape[1]) if position is None
                  else position[None])
    hidden_BLD = self._place(
        self._embed_text(token_ids_BL, language_B),
        text_mask_BL[:, :token_ids_BL.shape[1]], position_L, deterministic)
    return self._run_layers(hidden_BLD, text_mask_BL, memory,
                            position=position, deterministic=deterministic)

  def encode_images(self, regions: batch_lib.Regions,
                    language_B: jax.Array | None = None, *,
                    deterministic: bool | None = None) -> jax.Array:
    """Returns image-only hidden states [B, R, D]: no positions, no first LN."""
    deterministic = self._resolve(deterministic)
    return self._encode_regions(
        self._embed_regions(regions, deterministic), regions.mask_BR,
        language_B, deterministic)

  def _encode_regions(self, hidden_BRD, mask_BR, language_B, deterministic):
    hidden_BRD = self.add_language(hidden_BRD, language_B)
    hidden_BRD = self.drop(hidden_BRD, deterministic=deterministic)
    hidden_BRD *= mask_BR[..., None].astype(hidden_BRD.dtype)
    return self._run_layers(hidden_BRD, mask_BR, deterministic=deterministic)

  def _resolve(self, deterministic: bool | None) -> bool:
    if deterministic is None:
      return not self.has_rng('dropout')
    return deterministic

  def _embed_words(self, token_ids_BL):
    return self.tokens(token_ids_BL).astype(self.options.dtype)

  def _embed_text(self, token_ids_BL, language_B):
    return self.add_language(self._embed_words(token_ids_BL), language_B)

  def _embed_regions(self, regions, deterministic):
    hidden_BRD = self.drop(
        self.region_embedding(regions, deterministic=deterministic),
        deterministic=deterministic)
    if self.config.refiner_layers:
      hidden_BRD = self.refiner(
          hidden_BRD, regions.mask_BR, deterministic=deterministic)
    return hidden_BRD

  def add_language(self, hidden_BTD: jax.Array,
                   language_B: jax.Array | None) -> jax.Array:
    """Returns states plus their language's vector; it may be [B, T]."""
    if self.config.num_languages == 1 or language_B is None:
      return hidden_BTD
    added = self.languages(language_B).astype(hidden_BTD.dtype)
    return hidden_BTD + (added if language_B.ndim == 2 else added[:, None])

  def _place(self, hidden_BTD, mask_BT, position_T, deterministic):
    """Returns what enters the first layer, position by position."""
    hidden_BTD = self.embedding_norm(
        hidden_BTD + self.positions(position_T)[None].astype(hidden_BTD.dtype))
    hidden_BTD = self.drop(hidden_BTD, deterministic=deterministic)
    return hidden_BTD * mask_BT[..., None].astype(hidden_BTD.dtype)

  def _run_layers(self, hidden_BTD, mask_BT, memory=None, *, read=None,
                  position=None, deterministic):
    hidden_BTD = sharding.constrain(
        hidden_BTD, 'batch', 'length', 'activation_embed')
    return self.encoder(hidden_BTD, mask_BT, memory, read, position,
                        deterministic=deterministic)

  # Heads.

  def token_logits(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, P, V]; the table's padding rows are -inf."""
    return vocabulary.logits(
        hidden_BPD, self.tokens.embedding, self.token_bias,
        vocab_size=self.config.vocab_size)

  def token_nats(self, hidden_BPD: jax.Array, target_BP: jax.Array, *,
                 key: jax.Array | None = None, sampled_words: int = 0,
                 ) -> tuple[jax.Array, jax.Array]:
    """Returns the targets' nats [B, P], float32, and likeliest tokens.

    In training `sampled_words` of them stand for all, if it is not 0.
    """
    score, size = vocabulary.nats, self.config.vocab_size
    if sampled_words and self.has_rng('dropout'):
      score = functools.partial(vocabulary.sampled_nats, sample=vocabulary.draw(
          key, target_BP, sampled_words, vocab_size=size))
    return score(hidden_BPD, self.tokens.copies(hidden_BPD.dtype),
                 self.token_bias, target_BP, vocab_size=size)

  def region_class_logits(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, P, C] of the regions' classes."""
    return self.region_class(hidden_BPD).astype(jnp.float32)

  def region_features(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns the predicted un-normalised features [B, P, F], float32."""
    return self.region_regression(hidden_BPD).astype(jnp.float32)

  def match_rows(self, batch: batch_lib.Batch, *,
                 text_position: int | None = None) -> jax.Array:
    """Returns `match_logits` [B] of rows with regions; args as `encode`'s."""
    read_B1 = None  # The product of the two vectors reads every position.
    if self.config.match_head == 'first':
      read_B1 = jnp.zeros((len(batch.token_ids_BL), 1), jnp.int32)
    return self.match_logits(self.encode(
        batch, read=read_B1, text_position=text_position))

  def match_logits(self, encoded: Encoded) -> jax.Array:
    """Returns [B] float32: does the caption belong to the picture.

    Read from position 0, the first region; `config.match_head` may add the
    product of the two vectors (ViLBERT's match head reads that alone).

    Args:
      encoded: all positions, or position 0 read first.
    """
    hidden_BPD = (encoded.read_BPD if encoded.regions_BRD is None
                  else encoded.regions_BRD)
    pooled_BD = jnp.tanh(self.pooler(hidden_BPD[:, 0]))
    logits_B = self.match(pooled_BD)[:, 0].astype(jnp.float32)
    if encoded.product_BE is None:
      return logits_B
    return logits_B + FIRST_LOGIT_SCALE * jnp.einsum(
        'BE,E->B', encoded.product_BE, self.match_product)

  def caption_match_logits(self, hidden_BPD: jax.Array) -> jax.Array:
    """Returns [B] float32: do two captions in one row mean the same.

    The release's head, read from position 0, of the joint rows a region. Needs
    `config.caption_match`.
    """
    pooled_BD = jnp.tanh(self.caption_pooler(hidden_BPD[:, 0]))
    return self.caption_match(pooled_BD)[:, 0].astype(jnp.float32)

  def head(self, name: str, hidden_BPD: jax.Array) -> jax.Array:
    """Returns what a task's head makes of states: float32 [B, X]."""
    return self.heads[name](hidden_BPD)

  # The dual encoder.

  def embed_images(self, regions: batch_lib.Regions, *,
                   deterministic: bool | None = None) -> jax.Array:
    """Returns unit vectors [B, E], float32, of the pictures alone."""
    deterministic = self._resolve(deterministic)
    embedded_BRD = self._embed_regions(regions, deterministic)
    return self._image_vector(
        self._encode_regions(
            embedded_BRD, regions.mask_BR, None, deterministic),
        embedded_BRD, regions.mask_BR)

  def embed_regions(self, regions: batch_lib.Regions, *,
                    deterministic: bool | None = None) -> jax.Array:
    """Returns unit vectors [B, E] of embedded regions, without any layer."""
    embedded_BRD = self._embed_regions(regions, self._resolve(deterministic))
    return regions_lib.normalise(self.region_projection(
        regions_lib.mean_pool(embedded_BRD, regions.mask_BR)))

  def embed_texts(self, token_ids_BL: jax.Array, text_mask_BL: jax.Array,
                  language_B: jax.Array | None = None, *,
                  deterministic: bool | None = None) -> jax.Array:
    """Returns unit vectors [B, E], float32, of the captions alone."""
    text_BLD = self.encode(
        batch_lib.Batch(token_ids_BL, text_mask_BL, language_B),
        deterministic=deterministic).text_BLD
    return self._text_vector(text_BLD, text_mask_BL)

  def logit_scale(self) -> jax.Array:
    """Returns the learned factor on cosines, a positive float32 scalar."""
    return jnp.minimum(jnp.exp(self.log_scale), MAX_LOGIT_SCALE)

  def _image_vector(self, hidden_BRD, embedded_BRD, mask_BR):
    return regions_lib.normalise(
        self.image_projection(regions_lib.mean_pool(hidden_BRD, mask_BR))
        + self.region_projection(regions_lib.mean_pool(embedded_BRD, mask_BR)))

  def _text_vector(self, hidden_BLD, text_mask_BL):
    return regions_lib.normalise(
        self.text_projection(regions_lib.mean_pool(hidden_BLD, text_mask_BL)))


def init_params(config: model_config.ModelConfig, key: jax.Array) -> Any:
  """Returns fresh parameters, boxed with their logical axis names.

  Args:
    config: geometry.
    key: random key; equal keys give equal values on every mesh.
  """
  regions = batch_lib.Regions(
      image_id_B=jnp.zeros((1,), jnp.int32),
      features_BRF=jnp.zeros((1, 1, config.region_feature_dim)),
      boxes_BRG=jnp.zeros((1, 1, 5)),
      class_ids_BR=jnp.zeros((1, 1), jnp.int32),
      mask_BR=jnp.ones((1, 1), bool))
  batch = batch_lib.Batch(
      token_ids_BL=jnp.zeros((1, 1), jnp.int32),
      text_mask_BL=jnp.ones((1, 1), bool),
      language_B=jnp.zeros((1,), jnp.int32), regions=regions)
  return M3P(config).init(key, batch)['params']


@functools.lru_cache(maxsize=4)
def abstract_params(config: model_config.ModelConfig) -> Any:
  """Returns the shapes of `init_params`, boxed, which are traced once."""
  return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
