"""Captions of several languages against the same pictures: scores, results.

Letters: I pictures, C captions, P pairs, E shared space of the dual encoder.
"""

from collections.abc import Mapping, Sequence
import pathlib
import time
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from input_pipeline import errors
from input_pipeline import evaluation_set
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import exact
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import ranking
from m3p_jax.evaluation import rerank
from m3p_jax.evaluation import statistics
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config_lib

MODES = ('dual', 'joint', 'rerank')


class Outcome(NamedTuple):
  """What one evaluation found by language, before it is written anywhere."""
  languages: dict[str, dict[str, Any]]  # As retrieval.json holds them.
  # [C, I] scores that order the pictures; NaN where no trial asks.
  text_to_image: dict[str, np.ndarray]
  queries: dict[str, dict[str, statistics.Queries]]
  curve: list[dict[str, Any]]  # Of two stages; empty for the dual encoder.
  pairs_scored: int
  seconds: float  # Of computing, compilation included.


class Scorer:
  """Scores the captions of several languages against the same pictures."""

  def __init__(self, engine: engine_lib.Engine,
               retrieval_set: evaluation_set.RetrievalSet,
               languages: Sequence[str], protocol: str,
               language_ids: Mapping[str, int] | None):
    """Lays the captions of all languages one below the other.

    `language_ids`, the index of each language in the checkpoint's, are needed
    where the model has language embeddings.

    Raises:
      UserError: unknown protocol, a language that is not there, no picture,
        or a picture without regions.
    """
    self._engine = engine
    self._regions = retrieval_set.regions
    self._image_ids = retrieval_set.image_ids
    _check_pictures(retrieval_set)
    # Language → its trials under the protocol, and its rows.
    self.trials: dict[str, list[protocols.Trial]] = {}
    self._slices: dict[str, slice] = {}
    sets, total = [], 0
    for name in languages:
      if name not in retrieval_set.captions:
        raise errors.UserError(
            f'language {name!r} has no captions here; allowed: '
            f'{", ".join(retrieval_set.captions)}')
      one = retrieval_set.captions[name]
      self.trials[name] = protocols.trials(
          protocol, name, len(retrieval_set.image_ids), one)
      self._slices[name] = slice(total, total + len(one.texts))
      total += len(one.texts)
      sets.append((one, _language_id(engine.config, language_ids, name)))
    self._texts = engine_lib.Texts(
        np.concatenate([one.token_ids_NL for one, _ in sets]),
        np.concatenate([one.text_mask_NL for one, _ in sets]),
        np.concatenate([np.full(len(one.texts), language, np.int32)
                        for one, language in sets]))

  def dual(self) -> dict[str, np.ndarray]:
    """Returns {language: float32 [C, I], logit_scale · cosine}; none is NaN.
    """
    images_IE = self._engine.embed_images(self._regions, title='pictures')
    texts_CE = self._engine.embed_texts(self._texts, title='captions')
    logits_CI = self._engine.logit_scale() * np.einsum(
        'CE,IE->CI', texts_CE, images_IE)
    self._refuse_nan(logits_CI, np.ones_like(logits_CI, bool))
    return {name: logits_CI[rows] for name, rows in self._slices.items()}

  def wanted(self, dual: Mapping[str, np.ndarray],
             top_k: int) -> dict[str, np.ndarray]:
    """Returns {language: bool [C, I]}: each query's first k candidates."""
    found = {}
    for name, trials in self.trials.items():
      found[name] = np.zeros(dual[name].shape, bool)
      for trial in trials:
        text_P, image_P = np.nonzero(
            rerank.wanted_pairs(trial, trial.cut(dual[name]), top_k))
        found[name][trial.captions[text_P], trial.pictures[image_P]] = True
    return found

  def match(self, wanted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {language: float32 [C, I] match logits}, NaN where not wanted.
    """
    logits_CI = np.full((len(self._texts.language_C),
                         len(self._regions.mask_BR)), np.nan, np.float32)
    wanted_CI = np.concatenate([wanted[name] for name in self._slices])
    text_P, image_P = np.nonzero(wanted_CI)
    if len(text_P):
      logits_CI[text_P, image_P] = self._engine.match(
          self._regions, self._texts, image_P, text_P, title='pairs',
          is_shared=True)
    self._refuse_nan(logits_CI, wanted_CI)
    return {name: logits_CI[rows] for name, rows in self._slices.items()}

  def match_all(self, folder: pathlib.Path | None = None,
                origin: Mapping[str, Any] | None = None,
                ) -> dict[str, np.ndarray]:
    """Returns {language: float32 [C, I]}, every pair of every trial scored.

    For the arguments see `exact.scores`.
    """
    questions, places = {}, {}
    for name, trials in self.trials.items():
      for fold, trial in enumerate(trials, 1):
        rows_C = np.unique(trial.captions)
        question = name if len(trials) == 1 else f'{name}.{fold}'
        chosen_C = rows_C + self._slices[name].start
        questions[question] = exact.Question(
            engine_lib.Texts(self._texts.token_ids_CL[chosen_C],
                             self._texts.text_mask_CL[chosen_C], None),
            trial.pictures)
        places[question] = (name, rows_C)
    shape = len(self._regions.mask_BR)
    found = {name: np.full((rows.stop - rows.start, shape), np.nan, np.float32)
             for name, rows in self._slices.items()}
    for question, part_CI in exact.scores(
        self._engine, self._regions, questions, folder=folder, origin=origin,
        title='pairs').items():
      name, rows_C = places[question]
      asked_I = questions[question].pictures_I
      found[name][np.ix_(rows_C, asked_I)] = part_CI[:, asked_I]
    return found

  def scores(self, dual: Mapping[str, np.ndarray],
             match: Mapping[str, np.ndarray],
             ) -> dict[str, list[rerank.Scores]]:
    """Returns {language: what its trials are measured from}."""
    return {name: [rerank.Scores(trial, trial.cut(dual[name]),
                                 trial.cut(match[name])) for trial in trials]
            for name, trials in self.trials.items()}

  def _refuse_nan(self, scores_CI: np.ndarray,
                  is_scored_CI: np.ndarray) -> None:
    text_P, image_P = np.nonzero(is_scored_CI & np.isnan(scores_CI))
    if len(text_P):
      name, rows = next((name, rows) for name, rows in self._slices.items()
                        if text_P[0] < rows.stop)
      raise errors.UserError(
          f'{name}: the score of caption {text_P[0] - rows.start} and picture '
          f'{self._image_ids[image_P[0]]!r} is NaN ({len(text_P)} of '
          f'{is_scored_CI.sum()} are); the weights or features that gave it '
          'are broken')


def make_scorer(weights: weights_lib.Weights,
                retrieval_set: evaluation_set.RetrievalSet,
                languages: Sequence[str],
                c: ml_collections.ConfigDict) -> Scorer:
  """Returns the scorer of a checkpoint; `c` is `config.evaluation`."""
  engine = engine_lib.Engine(
      weights.params, weights.config, batch_size=c.batch_size,
      dtype=weights.dtype)
  return Scorer(engine, retrieval_set, languages, c.protocol,
                weights.language_ids)


def run(scorer: Scorer, *, mode: str, top_k: int = 20,
        joint_weight: float = -1.0, folder: pathlib.Path | None = None,
        origin: Mapping[str, Any] | None = None) -> Outcome:
  """Returns the retrieval results of a model in the scorer's languages.

  Args:
    scorer: of the model and what it is asked.
    mode: 'dual', 'joint' (every pair, the match logit alone) or 'rerank'.
    top_k: candidates that are re-ranked, each direction; larger than the
      gallery = all.
    joint_weight: a re-ranked pair scores logit_scale · cosine + joint_weight ·
      match logit; negative = the match logit alone.
    folder: keeps the scores of mode 'joint' while they come; a run that was
      killed goes on from there.
    origin: what those scores depend on, as JSON.

  Raises:
    UserError: unknown mode, or a score is NaN.
  """
  check_mode(mode)
  start = time.monotonic()
  dual = scorer.dual()
  wanted = scorer.wanted(dual, top_k if mode == 'rerank' else 0)
  if mode == 'joint':
    match = scorer.match_all(folder, origin)
    # Everything is re-ranked by the match logit alone.
    top_k, joint_weight = max(max(one.shape) for one in dual.values()), -1.0
    wanted = {name: ~np.isnan(one) for name, one in match.items()}
  else:
    match = scorer.match(wanted)
    top_k = top_k if mode == 'rerank' else 0
  scores = scorer.scores(dual, match)
  languages, text_to_image, queries = {}, {}, {}
  for name, parts in scores.items():
    text_to_image[name] = np.full(dual[name].shape, np.nan)
    found = []
    for part in parts:
      final = rerank.final(part, top_k=top_k, joint_weight=joint_weight)
      text_to_image[name][np.ix_(
          part.trial.captions, part.trial.pictures)] = final[0]
      found.append((ranking.measure(part.trial, *final),
                    statistics.queries(part.trial, *final)))
    languages[name] = ranking.average([one for one, _ in found])
    languages[name]['pairs_scored'] = int(wanted[name].sum())
    queries[name] = statistics.join([one for _, one in found])
  curve = [] if mode == 'dual' else rerank.curve(
      scores, most=top_k, joint_weight=joint_weight)
  return Outcome(languages, text_to_image, queries, curve,
                 sum(one['pairs_scored'] for one in languages.values()),
                 time.monotonic() - start)


def check_mode(mode: str) -> None:
  """Raises UserError where the mode is none of `MODES`."""
  if mode not in MODES:
    raise errors.UserError(f'config.evaluation.mode is {mode!r}; allowed: '
                           f'{", ".join(MODES)}')


def choose_rerank(
    scorer: Scorer, *, top_ks: Sequence[int],
    joint_weights: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0, -1.0),
    ) -> rerank.Choice:
  """Returns the best top k and weight on a (validation) set, with curves.

  Pairs are scored once, for the largest k; every other k and weight is
  computed from them.
  """
  dual = scorer.dual()
  scores = scorer.scores(dual, scorer.match(
      scorer.wanted(dual, max(top_ks))))
  return rerank.choose([part for parts in scores.values() for part in parts],
                       top_ks=top_ks, joint_weights=joint_weights)


def _check_pictures(retrieval_set: evaluation_set.RetrievalSet) -> None:
  if not retrieval_set.image_ids:
    raise errors.UserError('the gallery is empty: there are no pictures')
  (empty,) = np.nonzero(~np.asarray(retrieval_set.regions.mask_BR).any(1))
  if len(empty):
    raise errors.UserError(
        f'picture {retrieval_set.image_ids[empty[0]]!r} has no features '
        f'({len(empty)} of {len(retrieval_set.image_ids)} have none); prepare '
        'the dataset again with features for them')


def _language_id(config: model_config_lib.ModelConfig,
                 language_ids: Mapping[str, int] | None, name: str) -> int:
  """Returns the language's row in the model's language table."""
  if config.num_languages == 1:
    return 0
  if language_ids is None or name not in language_ids:
    raise errors.UserError(
        f'the model has no embedding for language {name!r}; allowed: '
        f'{", ".join(language_ids or ())}')
  return language_ids[name]
