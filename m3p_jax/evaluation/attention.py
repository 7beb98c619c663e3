"""Where the words of a few captions look in their pictures, for the report.

Letters: B pairs, L text length, R regions.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import evaluation_set
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import examples
from m3p_jax.model import joint_pass
from m3p_jax.model import transformer

# Pairs shown, and words of each.
_PAIRS, _WORDS = 6, 5


def collect(engine: engines.Engine, retrieval_set: evaluation_set.RetrievalSet,
            languages: Sequence[str], *, data_dir: str | pathlib.Path,
            dataset: str, seed: int = 0) -> dict[str, Any]:
  """Returns the content of attention.json.

  Pairs are drawn at random, one a language, among captions of two words and
  more whose picture has a small copy.

  Args:
    engine: the model.
    retrieval_set: pictures and captions.
    languages: to draw from.
    data_dir: of prepared datasets, where the small pictures lie.
    dataset: its name.
    seed: of the draw.

  Returns:
    `pairs`: [{language, text, image_id, picture: data address, boxes: [[x1,
    y1, x2, y2] in shares of the picture], words: [{word, weights}]}].
  """
  rng = np.random.default_rng(seed)
  chosen = []
  for language in examples.spread(list(languages), _PAIRS):
    captions = retrieval_set.captions[language]
    for index in rng.permutation(len(captions.texts)):
      picture = min(captions.groups[index])
      path = examples.thumbnail(
          data_dir, dataset, retrieval_set.image_ids[picture])
      if path and len(captions.texts[index].split()) > 1:
        chosen.append((language, index, picture, path))
        break
  if not chosen:
    return {'pairs': []}
  texts = [retrieval_set.captions[language] for language, *_ in chosen]
  rows = [(captions.token_ids_NL[index], captions.text_mask_NL[index])
          for captions, (_, index, *_) in zip(texts, chosen, strict=True)]
  token_ids_BL, text_mask_BL = map(np.stack, zip(*rows, strict=True))
  pictures_B = [picture for _, _, picture, _ in chosen]
  batch = batch_lib.Batch(token_ids_BL, text_mask_BL, None, jax.tree.map(
      lambda x: np.asarray(x)[pictures_B], retrieval_set.regions))
  weights_BLR = np.asarray(jax.jit(engines.bound(
      engine.config, region_attention))(engine.params, batch))
  return {'pairs': [{
      'language': language, 'text': captions.texts[index],
      'image_id': retrieval_set.image_ids[picture],
      'picture': examples.data_uri(path),
      'boxes': retrieval_set.regions.boxes_BRG[picture, :, :4].tolist(),
      'words': _words(captions, index, weights_LR)}
      for (language, index, picture, path), captions, weights_LR in zip(
          chosen, texts, weights_BLR, strict=True)]}


def region_attention(model, batch: batch_lib.Batch) -> jax.Array:
  """Returns [B, L, R]: how much each token looks at each region.

  Attention weights of the last layer, mean over heads, float32; a token's sum
  to less than 1, the rest goes to the text.

  Args:
    model: bound `M3P`.
    batch: rows with regions.
  """
  c, regions = model.config, batch.regions
  num_regions = regions.mask_BR.shape[1]
  hidden_BTD = jnp.concatenate([
      model.place_regions(regions, jnp.arange(num_regions)[None]),
      model.place_text(batch.token_ids_BL, batch.text_mask_BL,
                       start=num_regions)], axis=1)
  mask_BT = jnp.concatenate([regions.mask_BR, batch.text_mask_BL], axis=1)
  last = c.num_layers - 1
  hidden_BTD = joint_pass.run_layers(model, hidden_BTD, mask_BT, 0, last)
  params = joint_pass.layer_params(model, last)['attention']
  query_BTHK, key_BSHK = (
      transformer.projection(c, name).apply(
          {'params': params[name]}, hidden_BTD) for name in ('query', 'key'))
  logits_BHTS = jnp.einsum(
      'BTHK,BSHK->BHTS', query_BTHK * c.head_size ** -0.5, key_BSHK,
      preferred_element_type=jnp.float32)
  logits_BHTS = jnp.where(
      mask_BT[:, None, None], logits_BHTS, jnp.finfo(jnp.float32).min)
  weights_BTS = jax.nn.softmax(logits_BHTS).mean(1)
  return weights_BTS[:, num_regions:, :num_regions]


def _words(captions: evaluation_set.CaptionSet, index: int,
           weights_LR: np.ndarray) -> list[dict[str, Any]]:
  """Returns the longest words in their order, and where they look."""
  words = captions.texts[index].split()
  lengths = captions.word_lengths_N[index]
  ends = 1 + np.cumsum(lengths)  # After `<s>`.
  shown = sorted(sorted(range(len(words)), key=lambda i: -len(words[i]))
                 [:_WORDS])
  return [{'word': words[i], 'weights': weights_LR[
      ends[i] - lengths[i]:ends[i]].mean(0).tolist()}
          for i in shown if ends[i] <= len(weights_LR)]
