"""Example queries with the pictures found, small enough to live in a report."""

import base64
from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from input_pipeline import builder
from input_pipeline import evaluation_set
from m3p_jax.evaluation import results

# Queries in one report, and pictures shown for each.
NUM_QUERIES = 12
NUM_SHOWN = 5


def thumbnail(data_dir: str | pathlib.Path, dataset: str,
              image_id: str) -> pathlib.Path | None:
  """Returns the small picture that `prepare` wrote; None where it did not."""
  path = (pathlib.Path(data_dir) / dataset / 'thumbnails'
          / builder.thumbnail_name(image_id))
  return path if path.exists() else None


def data_uri(path: pathlib.Path) -> str:
  """Returns the picture as a `data:` address."""
  content = base64.b64encode(path.read_bytes()).decode()
  return f'data:image/{path.suffix[1:]};base64,{content}'


def english_captions(retrieval_set: evaluation_set.RetrievalSet
                     ) -> dict[int, str]:
  """Returns {picture: its first English caption}, where English was loaded."""
  captions: dict[int, str] = {}
  if 'en' in retrieval_set.captions:
    english = retrieval_set.captions['en']
    for text, pictures in zip(english.texts, english.groups, strict=True):
      for picture in pictures:
        captions.setdefault(picture, text)
  return captions


def collect(retrieval_set: evaluation_set.RetrievalSet,
            text_to_image: Mapping[str, np.ndarray], *,
            data_dir: str | pathlib.Path, dataset: str,
            seed: int = 0) -> dict[str, Any]:
  """Returns queries drawn at random, none chosen by its result.

  Args:
    retrieval_set: what was evaluated.
    text_to_image: {language: [C, I] scores, NaN where nothing was asked}.
    data_dir: of prepared datasets, where the small pictures lie.
    dataset: its name.
    seed: of the draw.

  Returns:
    `queries`: a list of {language, text, english, rank, found: [{image_id,
    english, is_right}]}, and `pictures`: {image id: data address}.
  """
  rng = np.random.default_rng(seed)
  english = english_captions(retrieval_set)
  queries: list[dict[str, Any]] = []
  shown: set[int] = set()
  asked: set[int] = set()
  for language in _spread(list(text_to_image), NUM_QUERIES):
    captions = retrieval_set.captions[language]
    asked_C = ~np.isnan(text_to_image[language]).all(1)
    order = rng.permutation(np.flatnonzero(asked_C))
    # Another concept in each language, as long as there are enough.
    index = next((i for i in order if not captions.groups[i] & asked),
                 order[0])
    right = captions.groups[index]
    asked |= right
    scores_I = np.nan_to_num(text_to_image[language][index], nan=-np.inf)
    ranked = np.argsort(-scores_I, kind='stable')
    best = max(scores_I[list(right)])
    wrong = np.setdiff1d(np.arange(len(scores_I)), list(right))
    queries.append({
        'language': language, 'text': captions.texts[index],
        'english': english.get(min(right), ''),
        'rank': int((scores_I[wrong] >= best).sum()) + 1,
        'found': [{'image_id': retrieval_set.image_ids[i],
                   'english': english.get(int(i), ''),
                   'is_right': int(i) in right}
                  for i in ranked[:NUM_SHOWN]]})
    shown.update(map(int, ranked[:NUM_SHOWN]))
  pictures = {}
  for image_id in (retrieval_set.image_ids[i] for i in sorted(shown)):
    path = thumbnail(data_dir, dataset, image_id)
    if path:
      pictures[image_id] = data_uri(path)
  return {'queries': queries, 'pictures': pictures}


def update(workdir: pathlib.Path, setting: str,
           content: Mapping[str, Any]) -> None:
  """Writes one setting's examples into WORKDIR/examples.json."""
  path = workdir / 'examples.json'
  # The setting evaluated last comes last.
  kept = {name: one for name, one in results.read(path).items()
          if name != setting}
  results.write(path, kept | {setting: content})


def _spread(names: Sequence[str], count: int) -> list[str]:
  """Returns up to `count` of the names, evenly spread, the first included."""
  if len(names) <= count:
    return list(names)
  return [names[round(i)] for i in np.linspace(0, len(names) - 1, count)]
