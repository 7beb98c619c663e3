"""How much to re-rank: chosen on the validation split, within a budget."""

import pathlib
import time
from typing import Any

from absl import logging
import ml_collections

from configs import quickstart
from input_pipeline import evaluation_set
from m3p_jax import summary as summary_lib
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import results
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import scoring
from m3p_jax.evaluation import weights as weights_lib

TOP_KS = (1, 2, 3, 5, 8, 12, 20)
# Re-ranking the test split in all languages may take this long.
BUDGET_SECONDS = 240.0


def choice_name(setting: str, *, final: str) -> str:
  """Returns the file of a setting's choice; the report shows the final's."""
  return ('rerank_choice.json' if setting == final
          else f'rerank_choice_{setting}.json')


def read_choice(path: pathlib.Path) -> dict[str, Any]:
  """Returns the values of `config.evaluation` that were chosen."""
  choice = results.read(path)
  return {'mode': 'rerank', 'top_k': choice['top_k'],
          'joint_weight': choice['joint_weight']}


def choose(config: ml_collections.ConfigDict, path: pathlib.Path) -> None:
  """Writes the best top k and joint weight of a setting.

  Args:
    config: evaluates the setting's weights; captions of the held-out
      languages are not looked at.
    path: of the result.
  """
  c = config.evaluation
  data_dir = c.data_dir or config.data.data_dir
  weights = weights_lib.load(config.init_from, model=config.model.to_dict())
  weights_lib.check_data(weights, data_dir, c.dataset)

  def load(split, languages):
    return evaluation_set.load(
        data_dir, c.dataset, split, languages, c.max_length,
        max_positions=weights.config.max_positions)

  languages = [name for name in quickstart.SUPERVISED if name in c.languages]
  validation = load('validation', languages)
  seconds = _seconds_per_pair(
      engines.Engine(weights.params, weights.config, batch_size=c.batch_size,
                     dtype=weights.dtype),
      validation, languages[::4], weights.language_ids, protocol=c.protocol)
  num_queries = _num_queries(load(c.split, c.languages))
  top_ks = affordable(num_queries, seconds)
  logging.info('%.0f pairs/s: top k of %s may be re-ranked in %.0f s',
               1 / seconds, top_ks, BUDGET_SECONDS)
  choice = retrieval.choose_rerank(
      weights.params, weights.config, validation, languages, top_ks=top_ks,
      batch_size=c.batch_size, protocol=c.protocol,
      language_ids=weights.language_ids, dtype=weights.dtype)
  results.write(path, choice.to_json() | {
      'split': 'validation', 'languages': languages,
      'pairs_per_second': 1 / seconds, 'budget_seconds': BUDGET_SECONDS})


def affordable(num_queries: int, seconds_per_pair: float) -> list[int]:
  """Returns the top ks whose re-ranking fits the budget, at least one.

  Args:
    num_queries: of both directions, over all languages; each scores k pairs
      at most (pairs that both directions want are scored once).
    seconds_per_pair: of the joint encoder on this machine.
  """
  return [k for k in TOP_KS
          if k * num_queries * seconds_per_pair <= BUDGET_SECONDS
          ] or [TOP_KS[0]]


def _num_queries(retrieval_set: evaluation_set.RetrievalSet) -> int:
  return sum(len(one.texts) + len(set().union(*one.groups))
             for one in retrieval_set.captions.values())


def _seconds_per_pair(engine: engines.Engine,
                      retrieval_set: evaluation_set.RetrievalSet, languages,
                      language_ids, *, protocol: str) -> float:
  """Returns the joint encoder's time for a pair, compilation excluded."""
  scorer = scoring.Scorer(
      engine, retrieval_set, languages, protocol, language_ids)
  wanted = scorer.wanted(scorer.dual(), 1)
  scorer.match(wanted)
  start = time.monotonic()
  scorer.match(wanted)
  num_pairs = sum(int(one.sum()) for one in wanted.values())
  return (time.monotonic() - start) / num_pairs


def summary(workdir: pathlib.Path) -> str:
  """Returns the final tables, where the numbers are from, and what is next."""
  content = results.read(workdir / 'retrieval.json')
  columns = dict(content['settings'])
  reranked = results.read(workdir / 'retrieval_rerank.json')
  for name, cell in reranked.get('settings', {}).items():
    columns[f'{name}, top {cell["top_k"]} re-ranked'] = cell
  groups = results.language_groups(content)
  lines = ['', 'Mean recall on the Tux Paint test split, in per cent:', '',
           results.summary(content | {'settings': columns}), '',
           '| language | ' + ' | '.join(columns) + ' | chance |',
           '|---|' + '---:|' * (len(columns) + 1)]
  for title, names in groups.items():
    for name in names:
      cells = [cell['languages'].get(name) for cell in columns.values()]
      values = ' | '.join(
          f'{cell["mean_recall"]:.1f}' if cell else '–' for cell in cells)
      mark = ' (held out)' if title == 'held out' else ''
      lines.append(f'| {name}{mark} | {values} | {cells[0]["chance"]:.1f} |')
  run = next(iter(content['settings'].values()))['run']
  where = summary_lib.short(workdir)
  return '\n'.join([
      *lines, '', f'{run["machine"]}, commit {run["commit"]}, {run["date"]}',
      '', f'Report:  {where}/report.html',
      f'Search:  {summary_lib.command(workdir)} --mode=search '
      '--query="ein roter Apfel"',
      f'         make serve WORKDIR={where}, in the browser',
      f'More:    make rerank WORKDIR={where} · make ablation '
      f'WORKDIR={where}'])
