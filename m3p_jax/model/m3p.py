"""M3P: one Transformer over regions and text, and its heads.

Letters: B rows, L text length, R regions, T=R+L, P predictions a row, D width,
F region feature, V padded vocabulary, C region classes, E shared space.
Source: reference.md, sections 2 and 3.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from m3p_jax import batch as batch_lib
from m3p_jax.model import encoded as encoded_lib
from m3p_jax.model import heads
from m3p_jax.model import inputs
from m3p_jax.model import layer_stack
from m3p_jax.model import pooling
from m3p_jax.model import transformer


class M3P(inputs.Inputs, heads.Heads):
  """The model; every method is usable inside `nn.apply` on a bound module.

  Where `deterministic` is left None, dropout runs if the caller gave a
  'dropout' key.
  """

  def setup(self):
    c = self.config
    self._setup_inputs()
    layer = transformer.EncoderLayer
    if c.remat in layer_stack.CHECKPOINT_POLICIES:
      layer = nn.remat(layer, prevent_cse=False,
                       policy=layer_stack.CHECKPOINT_POLICIES[c.remat])
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
    hidden_BTD, mask_BT = self._join(batch, deterministic)
    hidden_BTD = self._run_layers(hidden_BTD, mask_BT, deterministic)
    regions_BRD, text_BLD = jnp.split(
        hidden_BTD, [batch.regions.mask_BR.shape[1]], axis=1)
    if self.config.match_head == 'first':
      return encoded_lib.Encoded(regions_BRD, text_BLD)
    return encoded_lib.Encoded(regions_BRD, text_BLD, self.match_inputs(
        regions_BRD, text_BLD, batch.regions.mask_BR, batch.text_mask_BL,
        self.pooled_regions(batch.regions)))

  def read_text(self, batch: batch_lib.Batch, position_BP: jax.Array, *,
                deterministic: bool | None = None) -> jax.Array:
    """Returns `encode`'s states of some tokens, [B, P, D].

    The last layer computes these alone.

    Args:
      batch: as `encode`'s.
      position_BP: int, the tokens' places in the text.
      deterministic: as `encode`'s.
    """
    deterministic = self._resolve(deterministic)
    if batch.regions is None:
      hidden_BTD, mask_BT = self._place_words(
          batch.token_ids_BL, batch.text_mask_BL, batch.language_B,
          deterministic)
    else:
      hidden_BTD, mask_BT = self._join(batch, deterministic)
      position_BP = position_BP + batch.regions.mask_BR.shape[1]
    return self._read(hidden_BTD, mask_BT, position_BP, deterministic)

  def read_regions(self, batch: batch_lib.Batch, position_BP: jax.Array, *,
                   deterministic: bool | None = None) -> jax.Array:
    """Returns `encode`'s states of some regions, [B, P, D].

    The last layer computes these alone.

    Args:
      batch: rows with regions.
      position_BP: int, the regions' places in the picture.
      deterministic: as `encode`'s.
    """
    deterministic = self._resolve(deterministic)
    hidden_BTD, mask_BT = self._join(batch, deterministic)
    return self._read(hidden_BTD, mask_BT, position_BP, deterministic)

  def match_rows(self, batch: batch_lib.Batch) -> jax.Array:
    """Returns `match_logits` [B] of rows with regions."""
    if self.config.match_head != 'first':
      return self.match_logits(self.encode(batch))
    first_B1 = jnp.zeros((len(batch.token_ids_BL), 1), jnp.int32)
    return self.match_logits(encoded_lib.Encoded(
        self.read_regions(batch, first_B1), None))

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

  def _encode_text(self, token_ids_BL, text_mask_BL, language_B,
                   deterministic, memory=None):
    hidden_BLD, mask_BL = self._place_words(
        token_ids_BL, text_mask_BL, language_B, deterministic)
    return self._run_layers(hidden_BLD, mask_BL, deterministic, memory)

  def _layer_seeds(self, deterministic):
    return self._seeds(
        deterministic, self.config.num_layers, transformer.NUM_SEEDS)

  def _run_layers(self, hidden_BTD, mask_BT, deterministic, memory=None):
    return self.encoder(hidden_BTD, mask_BT, self._layer_seeds(deterministic),
                        memory)[0]

  def _read(self, hidden_BTD, mask_BT, position_BP, deterministic):
    """Returns some positions after the last layer, [B, P, D]."""
    seeds = self._layer_seeds(deterministic)
    body_seeds, last_seeds = (None, None) if seeds is None else (
        seeds[:-1], seeds[-1])
    body, last = layer_stack.split_last(self.variables['params']['encoder'])
    hidden_BTD = layer_stack.run(
        self.config, body, hidden_BTD, mask_BT, body_seeds)
    return layer_stack.read_last(
        self.config, last, hidden_BTD, mask_BT, position_BP, last_seeds)
