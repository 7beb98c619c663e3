"""Retrieval of a checkpoint on a prepared split: dual, joint or re-ranked.

Letters: I pictures, C captions of one language, P pairs.
"""

from collections.abc import Collection, Mapping, Sequence
import pathlib
import time
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from input_pipeline import errors
from input_pipeline import evaluation_set
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import examples
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import report
from m3p_jax.evaluation import rerank
from m3p_jax.evaluation import results
from m3p_jax.evaluation import scoring
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config_lib

MODES = ('dual', 'joint', 'rerank')


class Outcome(NamedTuple):
  """What one evaluation found.

  Attributes:
    languages: language → cell of retrieval.json.
    text_to_image: language → [C, I] scores that order the pictures.
    pairs_scored: pairs that the joint encoder saw.
    seconds: of computing, compilation included.
  """
  languages: dict[str, dict[str, Any]]
  text_to_image: dict[str, np.ndarray]
  pairs_scored: int
  seconds: float


def evaluate_params(
    params: Any, model_config: model_config_lib.ModelConfig,
    retrieval_set: evaluation_set.RetrievalSet, languages: Sequence[str], *,
    mode: str = 'dual', top_k: int = 20, joint_weight: float = -1.0,
    batch_size: int = 256, protocol: str = 'tux-paint',
    language_ids: Mapping[str, int] | None = None) -> dict[str, dict[str, Any]]:
  """Returns {language: cell of retrieval.json}; see `run`."""
  return run(params, model_config, retrieval_set, languages, mode=mode,
             top_k=top_k, joint_weight=joint_weight, batch_size=batch_size,
             protocol=protocol, language_ids=language_ids).languages


def run(params: Any, model_config: model_config_lib.ModelConfig,
        retrieval_set: evaluation_set.RetrievalSet, languages: Sequence[str],
        *, mode: str, top_k: int = 20, joint_weight: float = -1.0,
        batch_size: int = 256, protocol: str = 'tux-paint',
        language_ids: Mapping[str, int] | None = None) -> Outcome:
  """Returns the retrieval results of a model in several languages.

  Args:
    params: of M3P, boxed or not.
    model_config: geometry.
    retrieval_set: pictures and captions.
    languages: which of its languages.
    mode: 'dual', 'joint' (every pair, the match logit alone) or 'rerank'.
    top_k: candidates that are re-ranked, each direction; larger than the
      gallery = all.
    joint_weight: a re-ranked pair scores logit_scale · cosine + joint_weight ·
      match logit; negative = the match logit alone.
    batch_size: rows or pairs in one forward pass.
    protocol: name of the protocol.
    language_ids: index of each language in the checkpoint's; needed where the
      model has language embeddings.

  Raises:
    UserError: unknown mode, protocol or language.
  """
  if mode not in MODES:
    raise errors.UserError(f'config.evaluation.mode is {mode!r}; allowed: '
                           f'{", ".join(MODES)}')
  start = time.monotonic()
  scorer = scoring.Scorer(
      engines.Engine(params, model_config, batch_size=batch_size),
      retrieval_set, languages, protocol, language_ids)
  if mode == 'joint':
    dual = {name: np.zeros(trial.is_right_CI.shape, np.float32)
            for name, trial in scorer.trials.items()}
    top_k, joint_weight = max(dual_CI.size for dual_CI in dual.values()), -1.0
    wanted = {name: np.ones(one.shape, bool) for name, one in dual.items()}
  else:
    dual = scorer.dual()
    top_k = top_k if mode == 'rerank' else 0
    wanted = {name: rerank.wanted_pairs(trial, dual[name], top_k)
              for name, trial in scorer.trials.items()}
  match = scorer.match(wanted)
  cells, text_to_image = {}, {}
  for name, trial in scorer.trials.items():
    text_to_image[name] = rerank.reorder(
        dual[name], match[name], top_k=top_k, joint_weight=joint_weight)
    cells[name] = rerank.measure(
        rerank.Scores(trial, dual[name], match[name]), top_k=top_k,
        joint_weight=joint_weight)
    cells[name]['pairs_scored'] = int(wanted[name].sum())
  return Outcome(cells, text_to_image,
                 sum(cell['pairs_scored'] for cell in cells.values()),
                 time.monotonic() - start)


def choose_rerank(
    params: Any, model_config: model_config_lib.ModelConfig,
    retrieval_set: evaluation_set.RetrievalSet, languages: Sequence[str], *,
    top_ks: Sequence[int] = (1, 2, 3, 5, 10, 20),
    joint_weights: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0, -1.0),
    batch_size: int = 256, protocol: str = 'tux-paint',
    language_ids: Mapping[str, int] | None = None) -> rerank.Choice:
  """Returns the best top k and weight on a (validation) set, with curves.

  Pairs are scored once, for the largest k; every other k and weight is
  computed from them.

  Args:
    params: of M3P.
    model_config: geometry.
    retrieval_set: of the validation split.
    languages: whose mean recall is averaged.
    top_ks: candidates to try.
    joint_weights: weights to try.
    batch_size: pairs in one forward pass.
    protocol: name of the protocol.
    language_ids: see `run`.
  """
  scorer = scoring.Scorer(
      engines.Engine(params, model_config, batch_size=batch_size),
      retrieval_set, languages, protocol, language_ids)
  dual = scorer.dual()
  match = scorer.match({
      name: rerank.wanted_pairs(trial, dual[name], max(top_ks))
      for name, trial in scorer.trials.items()})
  return rerank.choose(
      {name: rerank.Scores(trial, dual[name], match[name])
       for name, trial in scorer.trials.items()},
      top_ks=top_ks, joint_weights=joint_weights)


def evaluate(config: ml_collections.ConfigDict, workdir: str | pathlib.Path,
             *, given: Collection[str] | None = None) -> dict[str, Any]:
  """Evaluates a checkpoint, prints a table and returns the setting's cell.

  Weights: see `weights.source`. Writes the result's file (see
  `results.path_for`), examples.json and report.html.

  Args:
    config: as `configs/base.py`; `config.evaluation` says what.
    workdir: where the results go.
    given: dotted keys that the command line set; None = no command line.

  Raises:
    UserError: anything in the config that cannot be meant.
  """
  workdir = pathlib.Path(workdir)
  c = config.evaluation
  _check(c)
  weights = weights_lib.load(
      weights_lib.source(config, workdir, given=given),
      model=config.model.to_dict(), given=given or ())
  data_dir = c.data_dir or config.data.data_dir
  weights_lib.check_data(weights, data_dir, c.dataset)
  retrieval_set = evaluation_set.load(
      data_dir, c.dataset, c.split, c.languages, c.max_length)
  languages = list(retrieval_set.captions)
  outcome = run(
      weights.params, weights.config, retrieval_set, languages, mode=c.mode,
      top_k=c.top_k, joint_weight=c.joint_weight, batch_size=c.batch_size,
      protocol=c.protocol, language_ids=weights.language_ids)
  cell = {
      'step': weights.step, 'checkpoint': str(weights.path),
      'pairs_scored': outcome.pairs_scored, 'seconds': outcome.seconds,
      'trained_languages': list(config.data.image_text.languages),
      'seed': config.seed, 'parameters': sum(
          x.size for x in jax.tree.leaves(weights.params)),
      'run': provenance.collect(), 'languages': outcome.languages}
  if c.mode == 'rerank':
    cell |= {'top_k': c.top_k, 'joint_weight': c.joint_weight}
  header = {key: c[key] for key in results.HEADER}
  setting = c.setting or config.setting
  path = results.update(workdir, header, c.mode, setting, cell)
  examples.update(workdir, setting, examples.collect(
      retrieval_set, outcome.text_to_image, data_dir=data_dir,
      dataset=c.dataset) | header | {'mode': c.mode})
  print(f'\n{c.dataset} ({c.split}), setting {setting}, mode {c.mode}, '
        f'{len(retrieval_set.image_ids)} pictures, recalls in per cent:\n')
  print(results.table(cell, languages))
  print(f'\n{outcome.seconds:.0f} s, {outcome.pairs_scored:,} pairs through '
        f'the joint encoder; written to {path}')
  report.write(workdir)
  return cell


def _check(c: ml_collections.ConfigDict) -> None:
  """Raises UserError for a value of config.evaluation that cannot be meant."""
  protocols.get(c.protocol)
  for key, least in (('top_k', 1), ('batch_size', 1), ('max_length', 3)):
    if c[key] < least:
      raise errors.UserError(
          f'config.evaluation.{key} is {c[key]}; allowed: {least} and more')
