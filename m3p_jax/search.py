"""Search pictures by text in any language, and text by picture.

>>> from m3p_jax import search
>>> searcher = search.load('runs/quickstart')

Pictures of the collection, best first; `mode='rerank'` lets the joint encoder
order the first few again, `mode='joint'` all of them:

>>> found = searcher.search('ein roter Apfel', k=3)
>>> [round(one.score, 2) == round(one.cosine, 2) for one in found]
[True, True, True]
>>> len(searcher.search('ein roter Apfel', k=3, mode='rerank'))
3

Pictures like another one, and captions that fit it. A picture is a path, a
Pillow image, a uint8 array or the name of one in the collection:

>>> searcher.similar('my_cat.jpg', k=2)[0].image_id in searcher.index.image_ids
True
>>> described = searcher.describe('my_cat.jpg', languages=('en', 'de'), k=5)
>>> [len(captions) for captions in described.values()]
[5, 5]

Scores of every picture with every text, and where the joint encoder looks:

>>> searcher.score(['my_cat.jpg'], ['a cat', 'a dog']).shape
(1, 2)
>>> explained = searcher.explain('my_cat.jpg', 'a black cat')
>>> explained.words
['a', 'black', 'cat']
>>> explained.weights_WR.sum(axis=1).round(3).tolist()
[1.0, 1.0, 1.0]
"""

from collections.abc import Collection
import json
import os
import pathlib
import textwrap

import ml_collections

from configs import base
from m3p_jax import config as config_lib
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.searching import collection as collection_lib
from m3p_jax.searching import exported
from m3p_jax.searching import rankings
from m3p_jax.searching import searcher as searcher_lib

Searcher = searcher_lib.Searcher
Result = searcher_lib.Result
Description = searcher_lib.Description


def load(path: str | pathlib.Path, *,
         config: ml_collections.ConfigDict | None = None,
         data_dir: str | pathlib.Path = '', dataset: str = '',
         split: str = collection_lib.ALL, checkpoint: str | pathlib.Path = '',
         given: Collection[str] | None = None) -> Searcher:
  """Returns a searcher of a run's weights and its evaluation dataset.

  Args:
    path: a workdir, a checkpoint, a `checkpoints/` folder, or a folder that
      `--mode=export --what=index` wrote. Vectors of the collection are kept in
      the workdir, under `search/`.
    config: overrides the workdir's config.json.
    data_dir: of prepared datasets; empty = the config's.
    dataset: the collection; empty = the config's.
    split: of the collection; 'all' = every split.
    checkpoint: of an exported index, where it has moved since.
    given: dotted keys of the command line, see `weights.source`.

  Raises:
    UserError: no checkpoint here.
  """
  path = pathlib.Path(path)
  if exported.is_here(path):
    source = exported.Source.open(path, data_dir=str(data_dir))
    return Searcher(source.weights(checkpoint), source,
                    settings=source.settings())
  saved = path / 'config.json'
  is_run = config is not None or (
      saved.exists() and (path / 'checkpoints').is_dir())
  weights_path: str | pathlib.Path = path
  if config is not None:
    weights_path = weights_lib.source(config, path, given=given)
  elif is_run:
    config = config_lib.get_config(str(saved))
  else:
    config = base.get_config()
    config.evaluation.dataset = config.data.data_dir = ''
  weights = weights_lib.load(
      weights_path, model=config.model.to_dict() if is_run else None,
      given=given or ())
  return Searcher(
      weights, collection_lib.Source(
          str(data_dir or config.evaluation.data_dir or config.data.data_dir),
          dataset or config.evaluation.dataset, split,
          path / 'search' if is_run else None),
      batch_size=config.evaluation.batch_size,
      settings=_settings(path, config, given or ()))


def from_flags(workdir: str | pathlib.Path, *,
               config: ml_collections.ConfigDict | None = None,
               given: Collection[str] | None = None) -> Searcher:
  """Returns the searcher of a command line: `load`, all splits unless given.

  Args:
    workdir: of the run.
    config: of the run; None = the workdir's.
    given: dotted keys that the command line set.

  Raises:
    UserError: see `load`.
  """
  split = collection_lib.ALL
  if config is not None and 'evaluation.split' in (given or ()):
    split = config.evaluation.split
  return load(workdir, config=config, split=split, given=given)


def main_search(workdir: str | pathlib.Path, query: str, k: int = 10, *,
                config: ml_collections.ConfigDict | None = None,
                given: Collection[str] | None = None) -> None:
  """Prints the k pictures nearest to the query, best first.

  Args:
    workdir: of the run.
    query: in any language.
    k: pictures wanted.
    config: of the run; None = the workdir's.
    given: dotted keys that the command line set; `evaluation.mode` among them
      chooses the scoring, which is 'dual' otherwise.

  Raises:
    UserError: see `load` and `Searcher.search`.
  """
  mode = 'dual'
  if config is not None and 'evaluation.mode' in (given or ()):
    mode = config.evaluation.mode
  found = from_flags(workdir, config=config, given=given)
  results = found.search(query, k, mode=mode)
  print(f'{len(found.index.image_ids):,} pictures, nearest to '
        f'{textwrap.shorten(repr(query), 60)} ({mode}):\n')
  for rank, result in enumerate(results, 1):
    caption = textwrap.shorten(result.caption, 44, placeholder='…')
    path = result.path.removeprefix(f'{os.getcwd()}/')
    match = '' if result.match is None else f'{result.match:6.0%}  '
    print(f'{rank:3}  {result.cosine:6.3f}  {match}{caption:44}  '
          f'{path or result.image_id}')


def main_export(workdir: str | pathlib.Path, out: str | pathlib.Path, *,
                config: ml_collections.ConfigDict | None = None,
                given: Collection[str] | None = None) -> None:
  """Writes the index of a run's collection, see `exported.export`.

  Args:
    workdir: of the run.
    out: folder that must not exist.
    config: of the run; None = the workdir's.
    given: dotted keys that the command line set.

  Raises:
    UserError: see `load` and `exported.export`.
  """
  exported.check_new(out)  # Before anything is loaded.
  manifest = exported.export(
      from_flags(workdir, config=config, given=given), out)
  print(f'{manifest["num_pictures"]:,} pictures, '
        f'{manifest["embedding_dim"]} numbers each, captions in '
        f'{len(manifest["languages"])} languages: written to {out}')


def _settings(path: pathlib.Path, config: ml_collections.ConfigDict,
              given: Collection[str]) -> rankings.Settings:
  """Returns how to re-rank: the weight chosen on validation, where one was."""
  weight = config.evaluation.joint_weight
  chosen = path / 'rerank_choice.json'
  if chosen.exists() and 'evaluation.joint_weight' not in given:
    weight = json.loads(chosen.read_text())['joint_weight']
  return rankings.Settings(config.evaluation.top_k, weight)
