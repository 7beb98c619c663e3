"""What one evaluation writes into a setting's cell of retrieval.json."""

import hashlib
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline import evaluation_set
from m3p_jax.evaluation import outcome as outcome_lib
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import statistics
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.model import config as model_config


def make(config: ml_collections.ConfigDict, weights: weights_lib.Weights,
         outcome: outcome_lib.Outcome,
         retrieval_set: evaluation_set.RetrievalSet) -> dict[str, Any]:
  """Returns the cell: the languages' results, and where they come from.

  Beside what `measures.measure` found, a language has `interval`, the 95 %
  bootstrap interval of its mean recall, `queries`, a checksum of what was
  asked, and `gap_to_english`, in points, where English was evaluated with it.

  Args:
    config: of the evaluation.
    weights: what was evaluated.
    outcome: what was found.
    retrieval_set: pictures and captions.
  """
  c = config.evaluation
  languages = {
      name: one | {
          'interval': list(statistics.interval([outcome.queries[name]])[1:]),
          'queries': checksum(retrieval_set, name)}
      for name, one in outcome.languages.items()}
  if 'en' in languages:
    for one in languages.values():
      one['gap_to_english'] = (
          languages['en']['mean_recall'] - one['mean_recall'])
  cell = {
      'step': weights.step, 'checkpoint': str(weights.path),
      'pairs_scored': outcome.pairs_scored, 'seconds': outcome.seconds,
      'trained_languages': list(config.data.image_text.languages),
      'seed': config.seed, 'parameters': sum(
          x.size for x in jax.tree.leaves(weights.params)),
      'run': provenance.collect(), 'languages': languages,
      'mean_rank_variance': statistics.mean_rank_variance(
          list(outcome.queries.values()))}
  if deviations := protocols.get(c.protocol).deviations(
      len(retrieval_set.image_ids)):
    cell['deviations'] = deviations
  if outcome.curve:
    cell['curve'] = outcome.curve
  if c.mode == 'rerank':
    cell |= {'top_k': c.top_k, 'joint_weight': c.joint_weight}
  return cell


def checksum(retrieval_set: evaluation_set.RetrievalSet, language: str) -> str:
  """Returns 16 hexadecimal digits of the pictures and a language's captions."""
  captions = retrieval_set.captions[language]
  content = [*retrieval_set.image_ids, '', *captions.texts]
  digest = hashlib.sha256('\n'.join(content).encode())
  digest.update(captions.token_ids_NL.tobytes())
  return digest.hexdigest()[:16]


def origin(config: ml_collections.ConfigDict, weights: weights_lib.Weights,
           retrieval_set: evaluation_set.RetrievalSet) -> dict[str, Any]:
  """Returns what the joint encoder's scores depend on, as JSON.

  Args:
    config: of the evaluation.
    weights: that score.
    retrieval_set: what is scored.
  """
  digest = hashlib.sha256()
  for path, leaf in jax.tree.leaves_with_path(weights.params):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  features = hashlib.sha256(retrieval_set.regions.features_BRF.tobytes())
  return {
      'dataset': config.evaluation.dataset, 'split': config.evaluation.split,
      'protocol': config.evaluation.protocol,
      'weights': digest.hexdigest()[:16],
      'dtype': model_config.number_format(weights.dtype),
      'features': features.hexdigest()[:16],
      'queries': {name: checksum(retrieval_set, name)
                  for name in retrieval_set.captions}}
