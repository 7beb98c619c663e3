"""The exact engine: the joint encoder's match logit of every pair.

Pictures are taken in blocks whose halves (see `joint_pass`) stay on the
devices, split over them, while all captions go by, sorted by length and cut
into tiles. A block and a language make a piece, which hosts share out, write
to disk and never score twice.

Letters: I pictures, C captions, R regions, L text length, N numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import numpy as np
import tqdm

from input_pipeline import bars
from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import forward
from m3p_jax.evaluation import partition
from m3p_jax.evaluation import score_files
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import joint_pass


class Question(NamedTuple):
  """One language: its captions, and the pictures that they are scored with.

  Attributes:
    texts: C captions.
    pictures_I: int, numbers of the pictures.
  """
  texts: engines.Texts
  pictures_I: np.ndarray


def scores(engine: engines.Engine, regions: batch_lib.Regions,
           questions: Mapping[str, Question], *,
           folder: pathlib.Path | None = None,
           origin: Mapping[str, Any] | None = None, total_pairs: int = 0,
           title: str = '') -> dict[str, np.ndarray]:
  """Returns {language: float32 [C, I] match logits}, NaN where not asked.

  Args:
    engine: the model.
    regions: of all I pictures.
    questions: by language.
    folder: gets FOLDER/LANGUAGE/piece_*.npy; a run found there goes on. None
      keeps everything in memory.
      Hosts share the pieces out, and wait for each other before they read.
    origin: what the scores depend on beside the arguments, as JSON.
    total_pairs: of all calls, where this is one of several: the more pairs,
      the more shapes pay; 0 = this is the only one.
    title: of the progress bar; empty = none.

  Raises:
    UserError: there is no picture or no caption, a score is NaN, the folder
      holds scores of something else, or hosts have no folder to share.
  """
  host, num_hosts = jax.process_index(), jax.process_count()
  if num_hosts > 1 and folder is None:
    raise errors.UserError(
        f'{num_hosts} hosts score together, but have no folder to share')
  _check(regions, questions)
  counts_I = partition.count_regions(regions)
  size = partition.block_size(
      max(len(one.pictures_I) for one in questions.values()),
      max(len(one.texts.token_ids_CL) for one in questions.values()))
  blocks = {name: partition.blocks(one.pictures_I, counts_I, size=size)
            for name, one in questions.items()}
  matrices = {} if folder is None else {
      name: score_files.Matrix(
          folder / name, len(one.texts.token_ids_CL), blocks[name],
          origin or {})
      for name, one in questions.items()}
  job = _Job(engine, regions, questions, blocks, size, total_pairs)
  mine = [(name, number) for name in questions
          for number in range(host, len(blocks[name]), num_hosts)]
  todo = [(name, number) for name, number in mine
          if not (matrices and matrices[name].has(number))]
  found = {name: np.full((len(one.texts.token_ids_CL), len(counts_I)), np.nan,
                         np.float32) for name, one in questions.items()}
  total, left = (sum(job.num_pairs(*piece) for piece in pieces)
                 for pieces in (mine, todo))
  with bars.bar(title if host == 0 else '', total, unit='pairs',
                initial=total - left) as bar:
    for name, number in todo:
      piece_CI = job.score(name, number, bar)
      found[name][:, blocks[name][number]] = piece_CI
      if matrices:
        matrices[name].write(number, piece_CI)
  if num_hosts > 1:
    multihost_utils.sync_global_devices(f'scores in {folder}')
  for name, matrix in matrices.items():
    matrix.read_into(found[name])
  return found


def _check(regions: batch_lib.Regions,
           questions: Mapping[str, Question]) -> None:
  """Raises UserError where there is nothing to score."""
  if not len(regions.mask_BR):
    raise errors.UserError('there are no pictures to search: the gallery is '
                           'empty')
  for name, one in questions.items():
    if not len(one.pictures_I) or not len(one.texts.token_ids_CL):
      raise errors.UserError(
          f'{name}: {len(one.texts.token_ids_CL)} captions and '
          f'{len(one.pictures_I)} pictures; there must be one of each at least')


class _Job:
  """Scores pieces; knows what all of them share."""

  def __init__(self, engine: engines.Engine, regions: batch_lib.Regions,
               questions: Mapping[str, Question],
               blocks: Mapping[str, Sequence[np.ndarray]], size: int,
               total_pairs: int):
    self._size = size
    self._engine, self._regions = engine, regions
    self._questions, self._blocks = questions, blocks
    self._order = {name: np.argsort(
        -one.texts.text_mask_CL.sum(1), kind='stable')
                   for name, one in questions.items()}
    counts_I = partition.count_regions(regions)
    lengths_N = np.concatenate(
        [self._tile_lengths(name) for name in questions])
    pairs = max(total_pairs, sum(
        len(one.pictures_I) * len(one.texts.token_ids_CL)
        for one in questions.values()))
    # Each picture stands for its share of the pairs, and so does each tile.
    price = partition.places_to_compile(
        engine.config, engine.num_devices) / pairs
    self._region_counts = partition.choose_lengths(
        counts_I, price * len(counts_I))
    self._lengths = partition.choose_lengths(
        lengths_N, price * len(self._region_counts) * len(lengths_N))

  def num_pairs(self, name: str, number: int) -> int:
    """Returns how many pairs a piece has."""
    return len(self._order[name]) * len(self._blocks[name][number])

  def score(self, name: str, number: int, bar: tqdm.tqdm) -> np.ndarray:
    """Returns one piece [C, I], float32.

    Raises:
      UserError: a score is NaN.
    """
    engine, texts = self._engine, self._questions[name].texts
    functions = _functions(engine.config, self._regions.mask_BR.shape[1])
    pictures_I = self._blocks[name][number]
    half = functions.picture_half(
        engine.joint_params, *self._put_pictures(pictures_I))
    out_CI = np.empty((len(texts.token_ids_CL), len(pictures_I)), np.float32)
    running = None
    for chosen, length in self._tiles(name):
      padded = np.pad(chosen, (0, self._tile(name) - len(chosen)), mode='edge')
      result = sharding.settle(functions.match_grid(
          engine.joint_params, half, *jax.device_put(
              (texts.token_ids_CL[padded, :length],
               texts.text_mask_CL[padded, :length]), engine.whole)))
      # The devices work on this tile while the one before is fetched.
      if running:
        _fetch(*running, out_CI, bar)
      running = (result, chosen)
    _fetch(*running, out_CI, bar)
    if np.isnan(out_CI).any():
      caption, picture = np.argwhere(np.isnan(out_CI))[0]
      raise errors.UserError(
          f'{name}: the score of caption {caption} and picture '
          f'{pictures_I[picture]} is NaN; the weights or features that gave it '
          'are broken')
    return out_CI

  def _tile(self, name: str) -> int:
    """Returns how many captions are scored with a block at once."""
    return max(1, min(self._engine.batch_size // self._size,
                      len(self._order[name])))

  def _tile_lengths(self, name: str) -> np.ndarray:
    """Returns the length of each tile's longest caption."""
    length_C = self._questions[name].texts.text_mask_CL.sum(1)
    return length_C[self._order[name]][::self._tile(name)]

  def _tiles(self, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (captions of a tile, the length they are padded to)."""
    size, order_C = self._tile(name), self._order[name]
    for start, longest in zip(range(0, len(order_C), size),
                              self._tile_lengths(name), strict=True):
      yield order_C[start:start + size], min(
          length for length in self._lengths if length >= longest)

  def _put_pictures(self, pictures_I: np.ndarray):
    """Returns (regions, positions) of a block on the devices, cut."""
    engine = self._engine
    size = partition.padded_size(len(pictures_I), size=self._size,
                                 num_devices=engine.num_devices)
    pictures_I = np.pad(pictures_I, (0, size - len(pictures_I)), mode='edge')
    counts_I = partition.count_regions(self._regions)[pictures_I]
    width = min(count for count in self._region_counts
                if count >= counts_I.max())
    # Position 0 is read by the match head; then come the regions that are.
    rank_IR = 1 + ~self._regions.mask_BR[pictures_I]
    rank_IR[:, 0] = 0
    position_IR = np.argsort(
        rank_IR, axis=1, kind='stable')[:, :width].astype(np.int32)
    rows_I1 = pictures_I[:, np.newaxis]
    regions = batch_lib.Regions(
        self._regions.image_id_B[pictures_I],
        *(np.asarray(x)[rows_I1, position_IR] for x in self._regions[1:]))
    return jax.device_put((regions, position_IR), engine.rows)


def _fetch(result: jax.Array, chosen: np.ndarray, out_CI: np.ndarray,
           bar: tqdm.tqdm) -> None:
  num_pictures = out_CI.shape[1]
  out_CI[chosen] = np.asarray(result)[:num_pictures, :len(chosen)].T
  bar.update(num_pictures * len(chosen))


class _Functions(NamedTuple):
  """The jitted halves of the joint pass; (params, …) → array."""
  picture_half: Any
  match_grid: Any


@functools.lru_cache(maxsize=4)
def _functions(config: model_config_lib.ModelConfig, num_regions: int,
               ) -> _Functions:

  def match_grid(model, pictures, token_ids_CL, text_mask_CL):
    return joint_pass.match_grid(model, pictures, joint_pass.text_half(
        model, token_ids_CL, text_mask_CL, start=num_regions))

  return _Functions(*(forward.jit(forward.bound(config, function))
                      for function in (joint_pass.picture_half, match_grid)))
