"""The commands `--mode=search` and `--mode=export`."""

from collections.abc import Collection
import json
import os
import textwrap

from absl import logging
import ml_collections

from input_pipeline import paths
from m3p_jax import packed
from m3p_jax import search as search_lib
from m3p_jax import sharding
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.search import collection as collection_lib
from m3p_jax.search import exported

# Of a workdir: what a recipe found and did not take, a line a reason.
LEFT_OUT = 'left_out.json'


def from_flags(workdir: str | paths.Path, *,
               config: ml_collections.ConfigDict | None = None,
               given: Collection[str] | None = None) -> search_lib.Searcher:
  """Returns the searcher of a command line: `load`, all splits unless given.

  A config of None is the workdir's; `given` are the dotted keys that the
  command line set.
  """
  split = collection_lib.ALL
  if config is not None and 'evaluation.split' in (given or ()):
    split = config.evaluation.split
  return search_lib.load(workdir, config=config, split=split, given=given)


def search(workdir: str | paths.Path, query: str, k: int = 10, *,
           config: ml_collections.ConfigDict | None = None,
           given: Collection[str] | None = None,
           as_json: bool = False) -> None:
  """Prints the k pictures nearest to the query, best first.

  `evaluation.mode` chooses the scoring where it is among the given keys; it is
  'dual' otherwise.

  Raises:
    UserError: see `search.load` and `Searcher.search`.
  """
  mode = 'dual'
  if config is not None and 'evaluation.mode' in (given or ()):
    mode = config.evaluation.mode
  searcher = from_flags(workdir, config=config, given=given)
  results = searcher.search(query, k, mode=mode)
  gone = sum(bool(one.path) and one.path == one.thumbnail for one in results)
  if gone:
    logging.warning(
        '%d of %d pictures found are not where they were read from: their '
        'small copies are named', gone, len(results))
  if as_json:
    print(json.dumps({
        'query': query, 'mode': mode,
        'num_pictures': len(searcher.index.pictures),
        'pictures': [one._asdict() for one in results]}, ensure_ascii=False))
    return
  print(f'{len(searcher.index.pictures):,} pictures, nearest to '
        f'{textwrap.shorten(repr(query), 60)} ({mode}):\n')
  for rank, result in enumerate(results, 1):
    caption = textwrap.shorten(result.caption, 44, placeholder='…')
    path = result.path.removeprefix(f'{os.getcwd()}/')
    match = '' if result.match is None else f'{result.match:6.0%}  '
    print(f'{rank:3}  {result.cosine:6.3f}  {match}{caption:44}  '
          f'{path or result.image_id}')


def export_index(workdir: str | paths.Path, out: str | paths.Path, *,
           config: ml_collections.ConfigDict | None = None,
           given: Collection[str] | None = None) -> None:
  """Writes the index of a run's collection, see `exported.export`."""
  exported.check_new(out)  # Before anything is loaded.
  manifest = exported.export(
      from_flags(workdir, config=config, given=given), out)
  print(f'{manifest["num_pictures"]:,} pictures, '
        f'{manifest["embedding_dim"]} numbers each, captions in '
        f'{len(manifest["languages"])} languages: written to {out}')


def export_weights(workdir: str | paths.Path, out: str | paths.Path, *,
                   config: ml_collections.ConfigDict,
                   given: Collection[str] | None = None) -> None:
  """Writes a run's weights in few bytes, see `packed.write`."""
  exported.check_new(out)
  weights = weights_lib.load(weights_lib.source(
      config, paths.of(workdir), given=given))
  if not sharding.is_first():
    return
  size = packed.write(out, weights.params, weights.config, weights.manifest,
                      run=provenance.collect() | {'step': weights.step})
  print(f'{size / 1e6:.1f} MB of weights, step {weights.step}: written to '
        f'{out}; it goes wherever a checkpoint does, as --config.init_from')
