"""Retrieval of a checkpoint on a prepared split, and the files it writes."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import ml_collections

from input_pipeline import errors
from input_pipeline import evaluation_set
from input_pipeline import paths
from m3p_jax import output
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import examples
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import report
from m3p_jax.evaluation import results
from m3p_jax.evaluation import scoring
from m3p_jax.evaluation import statistics
from m3p_jax.evaluation import weights as weights_lib


def evaluate(config: ml_collections.ConfigDict, workdir: str | paths.Path,
             *, given: Collection[str] | None = None) -> dict[str, Any]:
  """Evaluates a checkpoint, prints a table and returns the setting's entry.

  Weights: see `weights.source`. Writes the result's file (see
  `results.path_for`), the ranks beside it, examples.json, attention.json and
  report.html, and in mode 'joint' the scores while they come, below scores/.
  `given` are the dotted keys that the command line set; None = called from
  Python.

  Raises:
    UserError: anything in the config that cannot be meant, or a workdir that
      cannot be written to.
  """
  workdir = paths.of(workdir)
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
      text_room=weights.config.text_room)
  languages = list(retrieval_set.captions)
  setting = c.setting or config.setting
  folder, origin = None, None
  if c.mode == 'joint':
    folder = (workdir / 'scores' / f'{c.dataset}_{c.split}_{c.protocol}'
              / f'{setting}_{weights.path.name}')
    origin = provenance.of_scores(c, weights, retrieval_set)
  outcome = scoring.run(
      scoring.make_scorer(weights, retrieval_set, languages, c), mode=c.mode,
      top_k=c.top_k, joint_weight=c.joint_weight, folder=folder,
      origin=origin)
  entry = _entry(config, weights, outcome, retrieval_set)
  if jax.process_index():
    return entry  # Hosts score together; the first one writes.
  header = {key: c[key] for key in results.HEADER}
  path = results.update(workdir, header, c.mode, setting, entry)
  results.update_ranks(path, setting, outcome.queries)
  examples.update(workdir, setting, examples.collect(
      retrieval_set, outcome.text_to_image, data_dir=data_dir,
      dataset=c.dataset) | header | {'mode': c.mode})
  results.write(workdir / 'attention.json', examples.attention(
      engine_lib.Engine(weights.params, weights.config, dtype=weights.dtype),
      retrieval_set, languages, data_dir=data_dir, dataset=c.dataset))
  _show(c, setting, entry, retrieval_set)
  print(f'\n{outcome.seconds:.0f} s, {outcome.pairs_scored:,} pairs through '
        f'the joint encoder; written to {path}')
  report.write(workdir)
  return entry


def _check(c: ml_collections.ConfigDict) -> None:
  """Raises UserError for a value of config.evaluation that cannot be meant."""
  if protocols.get(c.protocol).kind != 'retrieval':
    raise errors.UserError(
        f'config.evaluation.protocol is {c.protocol!r}; allowed for retrieval: '
        + ', '.join(name for name, protocol in protocols.PROTOCOLS.items()
                    if protocol.kind == 'retrieval'))
  scoring.check_mode(c.mode)
  for key, least in (('top_k', 1), ('batch_size', 1), ('max_length', 3)):
    if c[key] < least and (key, c[key]) != ('max_length', 0):
      raise errors.UserError(
          f'config.evaluation.{key} is {c[key]}; allowed: '
          f'{"0, or " * (key == "max_length")}{least} and more')


def _entry(config: ml_collections.ConfigDict, weights: weights_lib.Weights,
           outcome: scoring.Outcome,
           retrieval_set: evaluation_set.RetrievalSet) -> dict[str, Any]:
  """Returns the setting's entry: results, and where they come from.

  Beside what `ranking.measure` found, a language has `interval`, the 95 %
  bootstrap interval of its mean recall, `queries`, a checksum of what was
  asked, `captions_cut`, how many were longer than `max_length` ids, and
  `gap_to_english`, in points, where English was evaluated with it.
  """
  c = config.evaluation
  languages = {
      name: one | {
          'interval': list(statistics.interval([outcome.queries[name]])[1:]),
          'queries': provenance.checksum(retrieval_set, name),
          'captions_cut': retrieval_set.captions[name].num_cut,
          'max_length': retrieval_set.captions[name].token_ids_NL.shape[1]}
      for name, one in outcome.languages.items()}
  if 'en' in languages:
    for one in languages.values():
      one['gap_to_english'] = (
          languages['en']['mean_recall'] - one['mean_recall'])
  entry = {
      'step': weights.step, 'checkpoint': str(weights.path),
      'weights': weights_lib.fingerprint_of(weights.path),
      'data': weights_lib.fingerprint_of_data(
          c.data_dir or config.data.data_dir, c.dataset, has_times=False),
      'pairs_scored': outcome.pairs_scored, 'seconds': outcome.seconds,
      'trained_languages': list(config.data.image_text.languages),
      'seed': config.seed, 'parameters': sum(
          x.size for x in jax.tree.leaves(weights.params)),
      'run': provenance.collect(), 'languages': languages,
      'mean_rank_variance': statistics.mean_rank_variance(
          list(outcome.queries.values()))}
  if deviations := protocols.get(c.protocol).deviations(
      len(retrieval_set.image_ids), retrieval_set.left_out):
    entry['deviations'] = deviations
  if notes := _left_out(config, len(retrieval_set.image_ids), languages):
    entry['left_out'] = notes
  if outcome.curve:
    entry['curve'] = outcome.curve
  if c.mode == 'rerank':
    entry |= {'top_k': c.top_k, 'joint_weight': c.joint_weight}
  return entry


def _left_out(config: ml_collections.ConfigDict, num_images: int,
              languages: Mapping[str, Any]) -> list[str]:
  """Returns what of the dataset was not asked, in words."""
  c = config.evaluation
  manifest = results.read(paths.of(
      c.data_dir or config.data.data_dir) / c.dataset / 'manifest.json')
  notes = []
  if limit := manifest.get('options', {}).get('limit'):
    notes.append(f'all but {limit} items, when it was prepared (--limit)')
  if skipped := manifest.get('skipped'):
    notes.append('what could not be used when it was prepared (all splits): '
                 + ', '.join(f'{reason} {count:,}'
                             for reason, count in skipped.items()))
  asked = protocols.get(c.protocol).num_folds * max(
      one['num_images'] for one in languages.values())
  if asked < num_images:
    notes.append(f'{num_images - asked:,} of {num_images:,} pictures, by the '
                 'protocol')
  return notes


def _show(c: ml_collections.ConfigDict, setting: str, entry: dict[str, Any],
          retrieval_set: evaluation_set.RetrievalSet) -> None:
  """Prints the table of a setting, and what it leaves out."""
  print(f'\n{c.dataset} ({c.split}), protocol {c.protocol}, setting {setting}, '
        f'mode {c.mode}, {len(retrieval_set.image_ids)} pictures, recalls in '
        'per cent:\n')
  print(results.table(entry, list(retrieval_set.captions)))
  print(''.join(f'\nLeft out: {one}' for one in entry.get('left_out', ())))
  if cut := results.cut_note(entry):
    print(cut)
  for deviation in entry.get('deviations', ()):
    print(f'\nNot comparable with published numbers: {deviation}')
