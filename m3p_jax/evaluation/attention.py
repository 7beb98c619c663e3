"""Where the words of a few captions look in their pictures, for the report.

Letters: B pairs, L text length, R regions.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import jax
import numpy as np

from input_pipeline import evaluation_set
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import examples

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
      address = examples.thumbnail(
          data_dir, dataset, retrieval_set.image_ids[picture])
      if address and len(captions.texts[index].split()) > 1:
        chosen.append((language, index, picture, address))
        break
  if not chosen:
    return {'pairs': []}
  texts = [retrieval_set.captions[language] for language, *_ in chosen]
  rows = [(captions.token_ids_NL[index], captions.text_mask_NL[index])
          for captions, (_, index, *_) in zip(texts, chosen, strict=True)]
  token_ids_BL, text_mask_BL = map(np.stack, zip(*rows, strict=True))
  pictures_B = [picture for _, _, picture, _ in chosen]
  regions = jax.tree.map(
      lambda x: np.asarray(x)[pictures_B], retrieval_set.regions)
  weights_BLR = engine.attention(
      regions, engines.Texts(token_ids_BL, text_mask_BL, None))
  return {'pairs': [{
      'language': language, 'text': captions.texts[index],
      'image_id': retrieval_set.image_ids[picture],
      'picture': address,
      'boxes': retrieval_set.regions.boxes_BRG[picture, :, :4].tolist(),
      'words': _words(captions, index, weights_LR)}
      for (language, index, picture, address), captions, weights_LR in zip(
          chosen, texts, weights_BLR, strict=True)]}


def _words(captions: evaluation_set.CaptionSet, index: int,
           weights_LR: np.ndarray) -> list[dict[str, Any]]:
  """Returns the longest words in their order, and where they look."""
  words = captions.texts[index].split(' ')
  lengths = captions.word_lengths_N[index]
  ends = 1 + np.cumsum(lengths)  # After `<s>`.
  shown = sorted(sorted(range(len(words)), key=lambda i: -len(words[i]))
                 [:_WORDS])
  return [{'word': words[i], 'weights': weights_LR[
      ends[i] - lengths[i]:ends[i]].mean(0).tolist()}
          for i in shown if lengths[i] and ends[i] <= len(weights_LR)]
