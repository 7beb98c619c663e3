"""The index as files for other tools: vectors, names, captions, a manifest.

Letters: I pictures, E shared space of the dual encoder.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax.evaluation import weights as weights_lib
from m3p_jax.search import collection as collection_lib
from m3p_jax.search import index as index_lib
from m3p_jax.search import rankings
from m3p_jax.search import searcher as searcher_lib


def export(searcher: searcher_lib.Searcher,
           out: str | pathlib.Path) -> dict[str, Any]:
  """Writes the index of a collection and returns its manifest.

  The folder appears whole or not at all: `vectors.npy` (float32 [I, E], unit
  length; row i belongs to line i of) `pictures.jsonl` (image_id, its small
  copy, its original and captions by language), and `manifest.json`.

  Raises:
    UserError: `out` exists, or there is no collection.
  """
  check_new(out)
  manifest, index = _manifest(searcher), searcher.index
  if not sharding.is_first():
    return manifest
  with output.draft(out, overwrite=False) as draft:
    draft.mkdir()
    np.save(draft / index_lib.VECTORS, index.vectors_IE)
    return index_lib.finish(draft, index.pictures, manifest)


def check_new(out: str | pathlib.Path) -> None:
  """Raises UserError where something is, or where nothing can be written."""
  if paths.of(out).exists():
    raise errors.UserError(f'--out={out} exists; allowed: a new folder')
  output.check_writable(out, '--out')


def _manifest(searcher: searcher_lib.Searcher) -> dict[str, Any]:
  weights, source = searcher.weights, searcher.source
  num_pictures, dim = searcher.index.vectors_IE.shape
  return {
      'dataset': source.dataset, 'split': source.split,
      'data_dir': str(paths.of(source.data_dir).absolute()),
      'num_pictures': num_pictures, 'embedding_dim': dim, 'dtype': 'float32',
      'metric': 'cosine', 'languages': searcher.languages,
      'data': weights_lib.fingerprint_of_data(
          source.data_dir, source.dataset, has_times=False),
      'checkpoint': str(weights.path.absolute()), 'step': weights.step,
      'weights': weights_lib.fingerprint_of(weights.path),
      'logit_scale': searcher.logit_scale,
      'rerank': dataclasses.asdict(searcher.settings),
      'tokenizer': weights.manifest.get('tokenizer'),
      'feature_extractor': weights.manifest.get('feature_extractor')}


def is_here(path: pathlib.Path) -> bool:
  """Returns whether the folder holds an exported index."""
  return (path / index_lib.MANIFEST).is_file() and (
      path / index_lib.VECTORS).is_file()


@dataclasses.dataclass(frozen=True)
class Source(collection_lib.Source):
  """A collection whose vectors and captions lie in an exported folder.

  Only what looks at regions (`mode='joint'`, 'rerank', `explain` and pictures
  by name) needs the prepared dataset that the manifest names.
  """
  folder: pathlib.Path = pathlib.Path()

  @classmethod
  def open(cls, folder: pathlib.Path, *, data_dir: str = '') -> 'Source':
    """Returns the source of a folder that `export` wrote.

    `data_dir` is where prepared datasets have moved since; UserError for a
    folder of another format.
    """
    manifest = index_lib.read_manifest(folder)
    return cls(data_dir or manifest['data_dir'], manifest['dataset'],
               manifest['split'], None, folder)

  def weights(self, checkpoint: str | pathlib.Path = ''
              ) -> weights_lib.Weights:
    """Returns the weights that the vectors were made with.

    They are in `checkpoint`, or where the manifest says; UserError where they
    are not there, or others are.
    """
    manifest = index_lib.read_manifest(self.folder)
    path = paths.of(checkpoint or manifest['checkpoint'])
    if not path.is_dir():
      raise errors.UserError(
          f'{self.folder / index_lib.MANIFEST} names the checkpoint {path}, '
          'which is not there; say where it is: load(path, checkpoint=DIR)')
    weights = weights_lib.load(path)
    made = [manifest['step'], manifest['embedding_dim']]
    found = [weights.step, weights.config.embedding_dim]
    if made != found:
      raise errors.UserError(
          f'{path}: step and width of the shared space are {found}, but '
          f'{self.folder / index_lib.VECTORS} was made with {made}')
    # An index of version 1 does not tell.
    if manifest.get('weights') not in (
        None, weights_lib.fingerprint_of(weights.path)):
      raise errors.UserError(
          f'{weights.path} holds other weights than those that the vectors of '
          f'{self.folder} were made with; export the index again, or say where '
          'those are: load(path, checkpoint=DIR)')
    return weights

  def _records(self, weights: weights_lib.Weights) -> collection_lib.Records:
    found = super()._records(weights)
    if not self._is_same_data:
      raise errors.UserError(
          f'{self.dataset} in {self.data_dir} was prepared again, from other '
          f'files, since {self.folder} was written: export the index again')
    return found

  @functools.cached_property
  def _is_same_data(self) -> bool:
    return index_lib.read_manifest(self.folder).get('data') in (
        None, weights_lib.fingerprint_of_data(
            self.data_dir, self.dataset, has_times=False))

  def settings(self) -> rankings.Settings:
    """Returns how to re-rank."""
    return rankings.Settings(**index_lib.read_manifest(self.folder)['rerank'])

  def index(self, weights: weights_lib.Weights,
            embed: collection_lib.Embed) -> index_lib.Index:
    """Returns the exported pictures and vectors."""
    del weights, embed
    return index_lib.load(self.folder)
