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

import ml_collections

from configs import base
from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import config as config_lib
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.search import collection as collection_lib
from m3p_jax.search import exported
from m3p_jax.search import rankings
from m3p_jax.search import searcher as searcher_lib

Searcher = searcher_lib.Searcher
Result = searcher_lib.Result
Description = searcher_lib.Description


def load(path: str | paths.Path, *,
         config: ml_collections.ConfigDict | None = None,
         data_dir: str | paths.Path = '', dataset: str = '',
         split: str = collection_lib.ALL, checkpoint: str | paths.Path = '',
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
  path = paths.of(path)
  if exported.is_here(path):
    if others := sorted(set(given or ()) - {'evaluation.mode'}):
      raise errors.UserError(
          f'--config.{others[0]}: {path} is an exported index, which is '
          'searched as it was made; allowed: --config.evaluation.mode')
    source = exported.Source.open(path, data_dir=str(data_dir))
    return Searcher(source.weights(checkpoint), source,
                    settings=source.settings())
  saved = path / 'config.json'
  is_run = config is not None or (
      saved.exists() and (path / 'checkpoints').is_dir())
  weights_path: str | paths.Path = path
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
  dataset = dataset or config.evaluation.dataset
  folder = str(data_dir or config.evaluation.data_dir or config.data.data_dir)
  # A workdir of `make photos` that was moved has its data with it.
  if (path / 'data' / dataset / 'manifest.json').exists() and not (
      data_dir or (paths.of(folder) / dataset).exists()):
    folder = str(path / 'data')
  return Searcher(
      weights, collection_lib.Source(
          folder, dataset, split,
          path / 'search' if is_run else None),
      batch_size=config.evaluation.batch_size,
      settings=_settings(path, config, given or ()))


def _settings(path: paths.Path, config: ml_collections.ConfigDict,
              given: Collection[str]) -> rankings.Settings:
  """Returns how to re-rank: the weight chosen on validation, where one was."""
  weight = config.evaluation.joint_weight
  chosen = path / 'rerank_choice.json'
  if chosen.exists() and 'evaluation.joint_weight' not in given:
    weight = json.loads(chosen.read_text())['joint_weight']
  return rankings.Settings(config.evaluation.top_k, weight)
