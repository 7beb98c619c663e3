"""The exact engine: the joint encoder's match logit of every pair.

A block of pictures with all captions of a language makes a piece, which hosts
share out, write to disk and never score twice: FOLDER/LANGUAGE/piece_0000.npy
holds the scores of all captions with the pictures that manifest.json tells.
Pieces appear whole or not at all, so that a run that was killed goes on with
the first that is missing, on any host that sees the folder.

Letters: I pictures, C captions, P pairs, R regions.
"""

from collections.abc import Mapping, Sequence
import io
import json
from typing import Any, NamedTuple

import jax
import numpy as np

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import results

MANIFEST = 'manifest.json'
# A run that is killed loses one piece: so many pairs, or one in so many of
# them all where that is more.
PAIRS_PER_PIECE, MOST_PIECES = 4_096, 1_000


class Question(NamedTuple):
  """C captions of a language, and numbers of the pictures to score them with.
  """
  texts: engine_lib.Texts
  pictures_I: np.ndarray


def scores(engine: engine_lib.Engine, regions: batch_lib.Regions,
           questions: Mapping[str, Question], *,
           folder: paths.Path | None = None,
           origin: Mapping[str, Any] | None = None,
           title: str = '') -> dict[str, np.ndarray]:
  """Returns {language: float32 [C, I] match logits}, NaN where not asked.

  The folder gets LANGUAGE/piece_*.npy, and a run found there goes on; None
  keeps everything in memory. Hosts share the pieces out, and wait for each
  other before they read. `origin` is what the scores depend on beside the
  arguments, as JSON.

  Raises:
    UserError: there is no picture or no caption, a score is NaN, the folder
      holds scores of something else, or hosts have no folder to share.
  """
  host, num_hosts = jax.process_index(), jax.process_count()
  if num_hosts > 1 and folder is None:
    raise errors.UserError(
        f'{num_hosts} hosts score together, but have no folder to share')
  _check(regions, questions)
  blocks = {name: cut(one.pictures_I, regions.mask_BR,
                      num_captions=len(one.texts.token_ids_CL))
            for name, one in questions.items()}
  matrices = {} if folder is None else {
      name: _Matrix(folder / name, len(one.texts.token_ids_CL), blocks[name],
                    origin or {})
      for name, one in questions.items()}
  mine = [(name, number) for name in questions
          for number in range(host, len(blocks[name]), num_hosts)]
  todo = [(name, number) for name, number in mine
          if not (matrices and matrices[name].path(number).exists())]
  found = {name: np.full(
      (len(one.texts.token_ids_CL), len(regions.mask_BR)), np.nan, np.float32)
           for name, one in questions.items()}
  total, left = (sum(
      len(blocks[name][number]) * len(found[name]) for name, number in pieces)
                 for pieces in (mine, todo))
  with console.bar(title if host == 0 else '', total, unit='pairs',
                   initial=total - left) as bar:
    for name, number in todo:
      pictures_I = blocks[name][number]
      piece_CI = _score(
          engine, regions, name, questions[name].texts, pictures_I)
      found[name][:, pictures_I] = piece_CI
      if matrices:
        matrices[name].write(number, piece_CI)
      bar.update(piece_CI.size)
  sharding.wait_for_all('scores')
  for name, matrix in matrices.items():
    matrix.read_into(found[name])
  return found


def cut(pictures_I: np.ndarray, mask_IR: np.ndarray, *,
        num_captions: int) -> list[np.ndarray]:
  """Returns the pictures of each piece, those with as many regions together.

  `mask_IR` is of all pictures; each is scored with `num_captions` captions.
  """
  pairs = max(PAIRS_PER_PIECE, num_captions * len(pictures_I) // MOST_PIECES)
  size = max(1, pairs // num_captions)
  # What is padding to a picture is no work only if all of its piece agree.
  counts_I = np.asarray(mask_IR).sum(1)[pictures_I]
  order_I = pictures_I[np.argsort(-counts_I, kind='stable')]
  return np.array_split(order_I, -(-len(order_I) // size))


def _check(regions: batch_lib.Regions,
           questions: Mapping[str, Question]) -> None:
  if not len(regions.mask_BR):
    raise errors.UserError('there are no pictures to search: the gallery is '
                           'empty')
  for name, one in questions.items():
    if not len(one.pictures_I) or not len(one.texts.token_ids_CL):
      raise errors.UserError(
          f'{name}: {len(one.texts.token_ids_CL)} captions and '
          f'{len(one.pictures_I)} pictures; there must be one of each at least')


def _score(engine: engine_lib.Engine, regions: batch_lib.Regions, name: str,
           texts: engine_lib.Texts, pictures_I: np.ndarray) -> np.ndarray:
  """Returns one piece [C, I], float32."""
  shape = len(texts.token_ids_CL), len(pictures_I)
  text_P, image_P = (index_CI.ravel() for index_CI in np.indices(shape))
  piece_CI = engine.match(
      jax.tree.map(lambda x: np.asarray(x)[pictures_I], regions), texts,
      image_P, text_P).reshape(shape)
  if np.isnan(piece_CI).any():
    caption, picture = np.argwhere(np.isnan(piece_CI))[0]
    raise errors.UserError(
        f'{name}: the score of caption {caption} and picture '
        f'{pictures_I[picture]} is NaN; the weights or features that gave it '
        'are broken')
  return piece_CI


class _Matrix:
  """Float32 [C, I] scores of one language, in pieces on disk."""

  def __init__(self, folder: paths.Path, num_captions: int,
               blocks: Sequence[np.ndarray], origin: Mapping[str, Any]):
    """Opens the folder, or begins it; UserError where it holds others."""
    self.folder = folder
    self._num_captions, self._blocks = num_captions, list(blocks)
    content = {
        'captions': num_captions,
        'pieces': [[int(i) for i in block] for block in blocks],
        **json.loads(json.dumps(origin))}
    path = folder / MANIFEST
    found = results.read(path)
    for key in content:
      if found and found.get(key) != content[key]:
        raise errors.UserError(
            f'{path}: its scores were made with another {key}'
            f'{_difference(found.get(key), content[key])}; delete {folder} '
            'to score again, or take another --workdir')
    if not found:
      results.write_text(path, json.dumps(content) + '\n')

  def write(self, number: int, scores_CI: np.ndarray) -> None:
    """Writes one piece whole."""
    content = io.BytesIO()
    np.save(content, scores_CI.astype(np.float32), allow_pickle=False)
    with results.draft(self.path(number)) as draft:
      draft.write_bytes(content.getvalue())

  def read_into(self, scores_CI: np.ndarray) -> None:
    """Writes every piece into its columns; UserError for one that is broken."""
    for number, block in enumerate(self._blocks):
      path = self.path(number)
      shape = self._num_captions, len(block)
      try:
        piece_CI = paths.load(path)
        if piece_CI.shape != shape:
          raise ValueError(f'its shape is {piece_CI.shape}, not {shape}')
      except (OSError, ValueError) as error:
        raise errors.UserError(
            f'{path}: cannot be read ({error}); delete it, and the same '
            'command scores it again') from error
      scores_CI[:, block] = piece_CI

  def path(self, number: int) -> paths.Path:
    return self.folder / f'piece_{number:04}.npy'


def _difference(found: Any, wanted: Any) -> str:
  """Returns both values where they are short."""
  values = f' ({json.dumps(found)}, now {json.dumps(wanted)})'
  return values if len(values) < 200 else ''
