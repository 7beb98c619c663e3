"""M3P's forward passes over its own state dict: a second implementation.

Written from reference.md alone, matrix by matrix, and slow. It shares no code
with the model that it is compared with.

Letters: B rows, T positions, D width, H heads, K head size.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

_EPSILON = 1e-12
_LOSSES = ('loss_mlm', 'loss_mrm', 'loss_mrfr', 'loss_vlm')


class M3P:
  """The passes of one state dict {key: array}."""

  def __init__(self, weights, num_heads: int):
    self._weights = weights
    self._num_heads = num_heads
    self._num_layers = sum(key.startswith('layer_norm1.') and
                           key.endswith('.weight') for key in weights)
    self._num_refiner_layers = sum(key.endswith('.aoa_layer.0.weight')
                                   for key in weights)

  def linear(self, key: str, x):
    return x @ self._weights[f'{key}.weight'].T + self._weights[f'{key}.bias']

  def norm(self, key: str, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + _EPSILON)
    return x * self._weights[f'{key}.weight'] + self._weights[f'{key}.bias']

  def table(self, key: str):
    return self._weights[f'{key}.weight']

  def _attend(self, keys, query_BTD, memory_BSD, allowed_BTS):
    q, k, v = (self.linear(key, x).reshape(
        *x.shape[:2], self._num_heads, -1).swapaxes(1, 2) for key, x in zip(
            keys, (query_BTD, memory_BSD, memory_BSD), strict=True))
    scores = (q / q.shape[-1] ** 0.5) @ k.swapaxes(2, 3)
    weights = jax.nn.softmax(
        jnp.where(allowed_BTS[:, None], scores, -1e30))
    return (weights @ v).swapaxes(1, 2).reshape(query_BTD.shape)

  def _block(self, name: str, i: int, query, memory, allowed):
    mixed = self._attend([f'{name}.{i}.{part}_lin' for part in 'qkv'],
                         query, memory, allowed)
    return self.linear(f'{name}.{i}.out_lin', mixed)

  def layers(self, h, mask_BT, memory=None):
    """Returns the last states; with a memory, causal and attending to it."""
    length = h.shape[1]
    allowed = mask_BT[:, None, :] & np.ones((length, 1), bool)
    if memory is not None:
      allowed &= np.tri(length, dtype=bool)
    for i in range(self._num_layers):
      h = self.norm(f'layer_norm1.{i}',
                    h + self._block('attentions', i, h, h, allowed))
      if memory is not None:
        everything = np.ones((len(h), length, memory.shape[1]), bool)
        h = self.norm(f'layer_norm15.{i}', h + self._block(
            'encoder_attn', i, h, memory, everything))
      inner = _gelu(self.linear(f'ffns.{i}.lin1', h))
      h = self.norm(f'layer_norm2.{i}',
                    h + self.linear(f'ffns.{i}.lin2', inner))
      h = h * mask_BT[..., None]
    return h

  def regions(self, features, boxes, *, refined: bool = False):
    """Returns the embedded regions."""
    key = 'image_embeddings'
    h = self.norm(f'{key}.LayerNorm',
                  self.linear(f'{key}.image_embeddings', features)
                  + self.linear(f'{key}.image_location_embeddings', boxes))
    if not refined:
      return h
    for i in range(self._num_refiner_layers):
      key = f'refine_embeddings.layers.{i}'
      query = self.norm(f'{key}.sublayer.0.norm', h)
      mixed = self._attend(
          [f'{key}.self_attn.linears.{n}' for n in range(3)], query, query,
          np.ones((len(h), h.shape[1], h.shape[1]), bool))
      value, gate = jnp.split(self.linear(
          f'{key}.self_attn.aoa_layer.0',
          jnp.concatenate([mixed, query], -1)), 2, -1)
      h = h + value / (1 + jnp.exp(-gate))
      inner = self.norm(f'{key}.sublayer.1.norm', h)
      h = h + self.linear(f'{key}.feed_forward.lin2', _gelu(
          self.linear(f'{key}.feed_forward.lin1', inner)))
    return self.norm('refine_embeddings.norm', h)

  def joint(self, ids, text_mask, regions):
    """Returns the states of regions, then words."""
    h = jnp.concatenate([regions, self.table('embeddings')[ids]], 1)
    mask = np.concatenate([np.ones(regions.shape[:2], bool), text_mask], 1)
    return self._with_positions(h, mask)

  def text(self, ids, text_mask, *, languages=None, memory=None):
    """Returns the states of words alone, or of a decoder's words."""
    h = self.table('embeddings')[ids]
    if languages is not None:
      h = h + self.table('cross_lang_embeddings')[languages][:, None]
    return self._with_positions(h, text_mask, memory)

  def image(self, regions, *, languages=None):
    """Returns the states of regions alone."""
    if languages is not None:
      regions = regions + self.table('cross_lang_embeddings')[languages][
          :, None]
    return self.layers(regions, np.ones(regions.shape[:2], bool))

  def _with_positions(self, h, mask, memory=None):
    h = h + self.table('position_embeddings')[:h.shape[1]]
    h = self.norm('layer_norm_emb', h) * mask[..., None]
    return self.layers(h, mask, memory)

  def match(self, h):
    pooled = jnp.tanh(self.linear('pooled_layer.dense', h[:, 0]))
    return self.linear('seq_relationship', pooled)[:, 0]

  def token_logits(self, h):
    return h @ self.table('embeddings').T + self._weights[
        'pred_layer.proj.bias']

  def class_logits(self, h):
    return self.linear('pred_obj_layer.proj', self.norm(
        'transformer_obj.LayerNorm',
        _gelu(self.linear('transformer_obj.dense', h))))


def _gelu(x):
  return x * (1 + jax.scipy.special.erf(x / 2 ** 0.5)) / 2


def _cross_entropy(logits, labels):
  """Returns the mean over the rows whose label is not −1."""
  rows = np.nonzero(labels != -1)
  nats = -jax.nn.log_softmax(logits)[(*rows, labels[rows])]
  return nats.mean()


def outputs(weights, inputs, *, num_heads: int) -> dict[str, np.ndarray]:
  """Returns every array that the golden vectors have, for `inputs`."""

  def run(weights):
    model = M3P(weights, num_heads)
    ids = inputs['masked_token_ids']
    mask = np.arange(ids.shape[1]) < inputs['text_lengths'][:, None]
    embed = functools.partial(model.regions, inputs['masked_region_features'],
                              inputs['region_locations'])
    joint = model.joint(ids, mask, embed())
    num_regions = inputs['region_features'].shape[1]
    regions, words = joint[:, :num_regions], joint[:, num_regions:]
    text, image = model.text(ids, mask), model.image(embed())
    labelled = inputs['object_labels'] != -1
    error = jnp.square(model.linear('mrfr_dense', regions)
                       - inputs['region_features'])
    sign = 2 * inputs['match_labels'] - 1
    found = {
        'joint_hidden': joint, 'text_hidden': text, 'image_hidden': image,
        'joint_hidden_refined': model.joint(ids, mask, embed(refined=True)),
        'decoder_hidden': model.text(inputs['token_ids'], mask, memory=image),
        'mlm_logits': model.token_logits(words).swapaxes(0, 1)[
            inputs['mlm_labels'].T != -1],
        'match_logits': model.match(joint),
        'loss_xmlm': _cross_entropy(
            model.token_logits(text), inputs['mlm_labels']),
        'loss_mlm': _cross_entropy(
            model.token_logits(words), inputs['mlm_labels']),
        'loss_mrm': _cross_entropy(
            model.class_logits(regions), inputs['object_labels']),
        'loss_mrfr': error[labelled].mean(),
        'loss_vlm': jnp.log1p(jnp.exp(-sign * model.match(joint))).mean()}
    return sum(found[name] for name in _LOSSES), found

  gradient: Callable = jax.jit(jax.grad(run, has_aux=True))
  gradients, found = gradient(weights)
  gradients = jax.device_get(gradients)
  norm = np.sqrt(sum(np.square(value).sum() for value in gradients.values()))
  # A key's bias moves no softmax: its gradient is 0, and rounding here.
  return jax.device_get({
      **found, 'grad_global_norm': norm,
      **{f'grad/{key}': value for key, value in gradients.items()
         if np.any(value) and not key.endswith('k_lin.bias')}})
