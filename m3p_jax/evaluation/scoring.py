"""Scores of the captions of several languages against the same pictures.

Letters: I pictures, C captions, P pairs, E shared space of the dual encoder.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import errors
from input_pipeline import evaluation_set
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import protocols
from m3p_jax.model import config as model_config_lib


class Scorer:
  """Scores the captions of several languages against the same pictures."""

  def __init__(self, engine: engines.Engine,
               retrieval_set: evaluation_set.RetrievalSet,
               languages: Sequence[str], protocol: str,
               language_ids: Mapping[str, int] | None):
    """Lays the captions of all languages one below the other.

    Raises:
      UserError: unknown protocol, or a language that is not there.
    """
    self._engine = engine
    self._regions = retrieval_set.regions
    num_images = len(retrieval_set.image_ids)
    make_trial = protocols.get(protocol)
    self.trials: dict[str, protocols.Trial] = {}
    self._slices: dict[str, slice] = {}
    sets, total = [], 0
    for name in languages:
      if name not in retrieval_set.captions:
        raise errors.UserError(
            f'language {name!r} has no captions here; allowed: '
            f'{", ".join(retrieval_set.captions)}')
      one = retrieval_set.captions[name]
      self.trials[name] = make_trial(num_images, one.groups)
      self._slices[name] = slice(total, total + len(one.texts))
      total += len(one.texts)
      sets.append((one, _language_id(engine.config, language_ids, name)))
    self._texts = engines.Texts(
        np.concatenate([one.token_ids_NL for one, _ in sets]),
        np.concatenate([one.text_mask_NL for one, _ in sets]),
        np.concatenate([np.full(len(one.texts), language, np.int32)
                        for one, language in sets]))

  def dual(self) -> dict[str, np.ndarray]:
    """Returns {language: float32 [C, I], logit_scale · cosine}."""
    images_IE = self._engine.embed_images(self._regions, title='pictures')
    texts_CE = self._engine.embed_texts(self._texts, title='captions')
    logits_CI = self._engine.logit_scale() * np.einsum(
        'CE,IE->CI', texts_CE, images_IE)
    return {name: logits_CI[rows] for name, rows in self._slices.items()}

  def match(self, wanted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {language: float32 [C, I] match logits}, NaN where not wanted."""
    logits_CI = np.full((len(self._texts.language_C),
                         len(self._regions.mask_BR)), np.nan, np.float32)
    wanted_CI = np.concatenate([wanted[name] for name in self._slices])
    text_P, image_P = np.nonzero(wanted_CI)
    if len(text_P):
      logits_CI[text_P, image_P] = self._engine.match(
          self._regions, self._texts, image_P, text_P, title='pairs')
    return {name: logits_CI[rows] for name, rows in self._slices.items()}


def _language_id(config: model_config_lib.ModelConfig,
                 language_ids: Mapping[str, int] | None, name: str) -> int:
  """Returns the language's row in the model's language table.

  Raises:
    UserError: the model has language embeddings, but none for this one.
  """
  if config.num_languages == 1:
    return 0
  if language_ids is None or name not in language_ids:
    raise errors.UserError(
        f'the model has no embedding for language {name!r}; allowed: '
        f'{", ".join(language_ids or ())}')
  return language_ids[name]
