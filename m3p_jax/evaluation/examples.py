"""What the report shows: queries with the pictures found, and attention.

Small enough to live in a report. Letters: I pictures, C captions, B pairs, L
text length, R regions.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from input_pipeline import copies
from input_pipeline import evaluation_set
from input_pipeline import paths
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import results

# Queries in one report, mistakes among them, and pictures shown for each.
NUM_QUERIES = 12
NUM_MISTAKES = 6
NUM_SHOWN = 5
# Pairs whose attention is shown, and words of each.
_PAIRS, _WORDS = 6, 5
# Pictures beside which the report shows what was written of them.
_PICTURES = 10


def collect(retrieval_set: evaluation_set.RetrievalSet,
            text_to_image: Mapping[str, np.ndarray], *,
            data_dir: str | paths.Path, dataset: str,
            seed: int = 0) -> dict[str, Any]:
  """Returns queries drawn at random, and the worst mistakes.

  `text_to_image` are {language: [C, I] scores, NaN where nothing was asked};
  the small pictures lie with the prepared dataset.

  Returns:
    `queries`, none chosen by its result, and `mistakes`, in some languages the
    one with the worst rank: lists of {language, text, english, rank, found:
    [{image_id, english, is_right}], wanted: the same of a right picture}, and
    `pictures`: {image id: data address}.
  """
  rng = np.random.default_rng(seed)
  found = _Found(retrieval_set, text_to_image)
  queries: list[dict[str, Any]] = []
  asked: set[int] = set()
  for language in _spread(list(text_to_image), NUM_QUERIES):
    captions = retrieval_set.captions[language]
    order = rng.permutation(found.asked(language))
    # Another concept in each language, as long as there are enough.
    index = next((i for i in order if not captions.groups[i] & asked),
                 order[0])
    asked |= captions.groups[index]
    queries.append(found.query(language, index))
  mistakes = []
  for language in _spread(list(text_to_image), NUM_MISTAKES):
    worst = max((found.query(language, i) for i in found.asked(language)),
                key=lambda query: query['rank'])
    if worst['rank'] > 1:
      mistakes.append(worst)
  pictures = {}
  for image_id in sorted({
      one['image_id'] for query in queries + mistakes
      for one in (*query['found'], query['wanted'])}):
    address = _thumbnail(data_dir, dataset, image_id)
    if address:
      pictures[image_id] = address
  return {'queries': queries, 'mistakes': mistakes, 'pictures': pictures}


class _Found:
  """Says what a query found."""

  def __init__(self, retrieval_set: evaluation_set.RetrievalSet,
               text_to_image: Mapping[str, np.ndarray]):
    self._set, self._scores = retrieval_set, text_to_image
    # {picture: its first English caption}, where English was loaded.
    self._english: dict[int, str] = {}
    if 'en' in retrieval_set.captions:
      english = retrieval_set.captions['en']
      for text, pictures in zip(english.texts, english.groups, strict=True):
        for picture in pictures:
          self._english.setdefault(picture, text)

  def asked(self, language: str) -> np.ndarray:
    """Returns the captions that were asked."""
    return np.flatnonzero(~np.isnan(self._scores[language]).all(1))

  def query(self, language: str, index: int) -> dict[str, Any]:
    """Returns one query as `collect` describes it."""
    captions = self._set.captions[language]
    right = captions.groups[index]
    scores_I = np.nan_to_num(self._scores[language][index], nan=-np.inf)
    best = max(right, key=lambda i: scores_I[i])
    wrong = np.setdiff1d(np.arange(len(scores_I)), list(right))
    ranked = np.argsort(-scores_I, kind='stable')
    return {
        'language': language, 'text': captions.texts[index],
        'english': self._english.get(min(right), ''),
        'rank': int((scores_I[wrong] >= scores_I[best]).sum()) + 1,
        'found': [self._picture(int(i), right) for i in ranked[:NUM_SHOWN]],
        'wanted': self._picture(int(best), right)}

  def _picture(self, number: int, right: Collection[int]) -> dict[str, Any]:
    return {'image_id': self._set.image_ids[number],
            'english': self._english.get(number, ''),
            'is_right': number in right}


def update(workdir: paths.Path, setting: str,
           content: Mapping[str, Any]) -> None:
  """Writes one setting's examples into WORKDIR/examples.json."""
  path = workdir / 'examples.json'
  # The setting evaluated last comes last.
  kept = {name: one for name, one in results.read(path).items()
          if name != setting}
  results.write(path, kept | {setting: content})


def attention(engine: engine_lib.Engine,
              retrieval_set: evaluation_set.RetrievalSet,
              languages: Sequence[str], *, data_dir: str | paths.Path,
              dataset: str, seed: int = 0) -> dict[str, Any]:
  """Returns where the words of a few captions look, for attention.json.

  Pairs are drawn at random, one a language, among captions of two words and
  more whose picture has a small copy.

  Returns:
    `pairs`: [{language, text, image_id, picture: data address, boxes: [[x1,
    y1, x2, y2] in shares of the picture], words: [{word, weights}]}].
  """
  rng = np.random.default_rng(seed)
  chosen = []
  for language in _spread(list(languages), _PAIRS):
    captions = retrieval_set.captions[language]
    for index in rng.permutation(len(captions.texts)):
      picture = min(captions.groups[index])
      address = _thumbnail(
          data_dir, dataset, retrieval_set.image_ids[picture])
      if address and len(captions.texts[index].split()) > 1:
        chosen.append((language, captions, index, picture, address))
        break
  if not chosen:
    return {'pairs': []}
  token_ids_BL, text_mask_BL = (
      np.stack(rows) for rows in zip(*(
          (captions.token_ids_NL[index], captions.text_mask_NL[index])
          for _, captions, index, *_ in chosen), strict=True))
  pictures_B = [picture for *_, picture, _ in chosen]
  regions = jax.tree.map(
      lambda x: np.asarray(x)[pictures_B], retrieval_set.regions)
  weights_BLR = engine.attention(
      regions, engine_lib.Texts(token_ids_BL, text_mask_BL, None))
  return {'pairs': [{
      'language': language, 'text': captions.texts[index],
      'image_id': retrieval_set.image_ids[picture],
      'picture': address,
      'boxes': retrieval_set.regions.boxes_BRG[picture, :, :4].tolist(),
      'words': _words(captions, index, weights_LR)}
      for (language, captions, index, picture, address), weights_LR in zip(
          chosen, weights_BLR, strict=True)]}


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


def draw(image_ids: Sequence[str], *, data_dir: str | paths.Path, dataset: str,
         seed: int = 0) -> dict[str, str]:
  """Returns {image id: data address} of some pictures, drawn at random."""
  found: dict[str, str] = {}
  for number in np.random.default_rng(seed).permutation(len(image_ids)):
    if address := _thumbnail(data_dir, dataset, image_ids[number]):
      found[image_ids[number]] = address
    if len(found) == _PICTURES:
      break
  return found


def _thumbnail(data_dir: str | paths.Path, dataset: str,
               image_id: str) -> str | None:
  """Returns the small picture as a `data:` address; None where there is none.
  """
  path = copies.small(paths.of(data_dir) / dataset, image_id)
  try:
    content = path.read_bytes() if path else b''
  except OSError:  # It shall not cost the evaluation.
    content = b''
  return (f'data:image/webp;base64,{base64.b64encode(content).decode()}'
          if content else None)


def _spread(names: Sequence[str], count: int) -> list[str]:
  """Returns up to `count` of the names, evenly spread, the first included."""
  if len(names) <= count:
    return list(names)
  return [names[round(i)] for i in np.linspace(0, len(names) - 1, count)]
