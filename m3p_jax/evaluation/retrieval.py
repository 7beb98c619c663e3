"""Retrieval of a checkpoint on a prepared split: dual, joint or re-ranked.

Letters: I pictures, C captions of one language, P pairs.
"""

from collections.abc import Collection, Mapping, Sequence
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline import errors
from input_pipeline import evaluation_set
from m3p_jax import output
from m3p_jax.evaluation import attention
from m3p_jax.evaluation import cells as cells_lib
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import examples
from m3p_jax.evaluation import measures
from m3p_jax.evaluation import outcome as outcome_lib
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import query_ranks
from m3p_jax.evaluation import report
from m3p_jax.evaluation import rerank
from m3p_jax.evaluation import results
from m3p_jax.evaluation import scoring
from m3p_jax.evaluation import statistics
from m3p_jax.evaluation import two_stage
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config_lib

MODES = ('dual', 'joint', 'rerank')


def run(params: Any, model_config: model_config_lib.ModelConfig,
        retrieval_set: evaluation_set.RetrievalSet, languages: Sequence[str],
        *, mode: str, top_k: int = 20, joint_weight: float = -1.0,
        batch_size: int = 256, protocol: str = 'tux-paint',
        language_ids: Mapping[str, int] | None = None, dtype: str = 'auto',
        folder: pathlib.Path | None = None,
        origin: Mapping[str, Any] | None = None) -> outcome_lib.Outcome:
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
    dtype: of activations.
    folder: keeps the scores of mode 'joint' while they come; a run that was
      killed goes on from there.
    origin: what those scores depend on, as JSON.

  Raises:
    UserError: unknown mode, protocol or language, no picture, or one without
      regions.
  """
  if mode not in MODES:
    raise errors.UserError(f'config.evaluation.mode is {mode!r}; allowed: '
                           f'{", ".join(MODES)}')
  start = time.monotonic()
  scorer = scoring.Scorer(
      engines.Engine(params, model_config, batch_size=batch_size, dtype=dtype),
      retrieval_set, languages, protocol, language_ids)
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
  cells, text_to_image, queries = {}, {}, {}
  for name, parts in scores.items():
    text_to_image[name] = np.full(dual[name].shape, np.nan)
    found = []
    for part in parts:
      final = rerank.final(part, top_k=top_k, joint_weight=joint_weight)
      text_to_image[name][np.ix_(
          part.trial.captions, part.trial.pictures)] = final[0]
      found.append((measures.measure(part.trial, *final),
                    statistics.queries(part.trial, *final)))
    cells[name] = measures.average([cell for cell, _ in found])
    cells[name]['pairs_scored'] = int(wanted[name].sum())
    queries[name] = statistics.join([one for _, one in found])
  curve = [] if mode == 'dual' else two_stage.curve(
      scores, most=top_k, joint_weight=joint_weight)
  return outcome_lib.Outcome(cells, text_to_image, queries, curve,
                 sum(cell['pairs_scored'] for cell in cells.values()),
                 time.monotonic() - start)


def choose_rerank(
    params: Any, model_config: model_config_lib.ModelConfig,
    retrieval_set: evaluation_set.RetrievalSet, languages: Sequence[str], *,
    top_ks: Sequence[int] = (1, 2, 3, 5, 10, 20),
    joint_weights: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0, -1.0),
    batch_size: int = 256, protocol: str = 'tux-paint',
    language_ids: Mapping[str, int] | None = None,
    dtype: str = 'auto') -> rerank.Choice:
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
    dtype: of activations.
  """
  scorer = scoring.Scorer(
      engines.Engine(params, model_config, batch_size=batch_size, dtype=dtype),
      retrieval_set, languages, protocol, language_ids)
  dual = scorer.dual()
  scores = scorer.scores(dual, scorer.match(
      scorer.wanted(dual, max(top_ks))))
  return rerank.choose(
      {f'{name}.{fold}': part for name, parts in scores.items()
       for fold, part in enumerate(parts)},
      top_ks=top_ks, joint_weights=joint_weights)


def evaluate(config: ml_collections.ConfigDict, workdir: str | pathlib.Path,
             *, given: Collection[str] | None = None) -> dict[str, Any]:
  """Evaluates a checkpoint, prints a table and returns the setting's cell.

  Weights: see `weights.source`. Writes the result's file (see
  `results.path_for`), the ranks beside it, examples.json and report.html, and
  in mode 'joint' the scores while they come, below scores/.

  Args:
    config: as `configs/base.py`; `config.evaluation` says what.
    workdir: where the results go.
    given: dotted keys that the command line set; None = no command line.

  Raises:
    UserError: anything in the config that cannot be meant, or a workdir that
      cannot be written to.
  """
  workdir = pathlib.Path(workdir)
  c = config.evaluation
  _check(c)
  output.check_writable(workdir, '--workdir')
  weights = weights_lib.load(
      weights_lib.source(config, workdir, given=given),
      model=config.model.to_dict(), given=given or ())
  data_dir = c.data_dir or config.data.data_dir
  weights_lib.check_data(weights, data_dir, c.dataset)
  retrieval_set = evaluation_set.load(
      data_dir, c.dataset, c.split, c.languages, c.max_length,
      max_positions=weights.config.max_positions)
  languages = list(retrieval_set.captions)
  setting = c.setting or config.setting
  folder, origin = None, None
  if c.mode == 'joint':
    folder = (workdir / 'scores' / f'{c.dataset}_{c.split}_{c.protocol}'
              / f'{setting}_{weights.path.name}')
    origin = cells_lib.origin(config, weights, retrieval_set)
  outcome = run(
      weights.params, weights.config, retrieval_set, languages, mode=c.mode,
      top_k=c.top_k, joint_weight=c.joint_weight, batch_size=c.batch_size,
      protocol=c.protocol, language_ids=weights.language_ids,
      dtype=weights.dtype, folder=folder, origin=origin)
  cell = cells_lib.make(config, weights, outcome, retrieval_set)
  if jax.process_index():
    return cell  # Hosts score together; the first one writes.
  header = {key: c[key] for key in results.HEADER}
  path = results.update(workdir, header, c.mode, setting, cell)
  query_ranks.update(path, setting, outcome.queries)
  examples.update(workdir, setting, examples.collect(
      retrieval_set, outcome.text_to_image, data_dir=data_dir,
      dataset=c.dataset) | header | {'mode': c.mode})
  results.write(workdir / 'attention.json', attention.collect(
      engines.Engine(weights.params, weights.config, dtype=weights.dtype),
      retrieval_set, languages, data_dir=data_dir, dataset=c.dataset))
  _show(c, setting, cell, retrieval_set)
  print(f'\n{outcome.seconds:.0f} s, {outcome.pairs_scored:,} pairs through '
        f'the joint encoder; written to {path}')
  report.write(workdir)
  return cell


def _show(c: ml_collections.ConfigDict, setting: str, cell: dict[str, Any],
          retrieval_set: evaluation_set.RetrievalSet) -> None:
  """Prints the table of a setting, and what it leaves out."""
  print(f'\n{c.dataset} ({c.split}), protocol {c.protocol}, setting {setting}, '
        f'mode {c.mode}, {len(retrieval_set.image_ids)} pictures, recalls in '
        'per cent:\n')
  print(results.table(cell, list(retrieval_set.captions)))
  print(''.join(f'\nLeft out: {one}' for one in cell.get('left_out', ())))
  if cut := results.cut_note(cell):
    print(cut)
  for deviation in cell.get('deviations', ()):
    print(f'\nNot comparable with published numbers: {deviation}')


def _check(c: ml_collections.ConfigDict) -> None:
  """Raises UserError for a value of config.evaluation that cannot be meant."""
  protocols.get(c.protocol)
  for key, least in (('top_k', 1), ('batch_size', 1), ('max_length', 3)):
    if c[key] < least and (key, c[key]) != ('max_length', 0):
      raise errors.UserError(
          f'config.evaluation.{key} is {c[key]}; allowed: '
          f'{"0, or " * (key == "max_length")}{least} and more')
