"""Matrices of scores on disk, written piece by piece: FOLDER/piece_0000.npy.

A piece holds the scores of all captions with some pictures, in the order that
FOLDER/manifest.json tells. Pieces appear whole or not at all, so that a run
that was killed goes on with the first that is missing, on any host that sees
the folder.
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

import numpy as np

from input_pipeline import errors
from m3p_jax.evaluation import results

MANIFEST = 'manifest.json'


class Matrix:
  """Float32 [C, I] scores of one language in pieces."""

  def __init__(self, folder: pathlib.Path, num_captions: int,
               blocks: Sequence[np.ndarray], origin: Mapping[str, Any]):
    """Opens the folder, or begins it.

    Args:
      folder: made where it is absent.
      num_captions: C.
      blocks: numbers of the pictures of each piece.
      origin: what the scores depend on, as JSON.

    Raises:
      UserError: the folder holds scores of something else.
    """
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
      folder.mkdir(parents=True, exist_ok=True)
      results.write_text(path, json.dumps(content) + '\n')

  def has(self, number: int) -> bool:
    """Returns whether a piece is there."""
    return self._path(number).exists()

  def write(self, number: int, scores_CI: np.ndarray) -> None:
    """Writes one piece whole."""
    path = self._path(number)
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    with draft.open('wb') as file:
      np.save(file, scores_CI.astype(np.float32), allow_pickle=False)
      file.flush()
      os.fsync(file.fileno())
    os.replace(draft, path)

  def read_into(self, scores_CI: np.ndarray) -> None:
    """Writes every piece into its columns of `scores_CI`.

    Raises:
      UserError: a piece is missing or has another shape.
    """
    for number, block in enumerate(self._blocks):
      path = self._path(number)
      try:
        piece_CI = np.load(path, allow_pickle=False)
      except (OSError, ValueError) as error:
        raise errors.UserError(
            f'{path}: cannot be read ({error}); delete it, and the same '
            'command scores it again') from error
      if piece_CI.shape != (self._num_captions, len(block)):
        raise errors.UserError(
            f'{path}: has shape {piece_CI.shape}, not '
            f'{(self._num_captions, len(block))}; delete it, and the same '
            'command scores it again')
      scores_CI[:, block] = piece_CI

  def _path(self, number: int) -> pathlib.Path:
    return self.folder / f'piece_{number:04}.npy'


def _difference(found: Any, wanted: Any) -> str:
  """Returns both values where they are short."""
  told = f' ({json.dumps(found)}, now {json.dumps(wanted)})'
  return told if len(told) < 200 else ''
