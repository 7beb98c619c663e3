"""The sizes that are measured, and rows of them: equal for every contender.

Letters: B rows, L text length, R regions, F region feature, G=5 box.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

# Paper: masked tokens of text and of captions, masked regions, matching.
TASKS = ('mc_mlm', 'mc_mrm', 'mc_vlm', 'xmlm')
# The release cuts captions at this length, and pads to it.
RELEASE_LENGTH = 64
# Tells its source.
_LENGTHS = pathlib.Path(__file__).with_name('caption_lengths.json')


class Problem(NamedTuple):
  """One size.

  Attributes:
    model: keyword arguments of `ModelConfig`.
    num_regions: R, of every picture.
    text_length: L, of every text.
    task_rows: B, rows of each task in one training step.
    score_rows: captions to score, and pairs in one forward pass of it.
    score_pictures: pictures to score with each.
    rounds: runs of each contender.
  """
  model: dict[str, Any]
  num_regions: int
  text_length: int
  task_rows: int
  score_rows: int
  score_pictures: int
  rounds: int


_COMMON = dict(num_languages=1, dropout=0.1, attention_dropout=0.1)
PROBLEMS = {
    # XLM-R base over 100 regions of a detector: the paper's. A layer keeps
    # what enters it alone: on a CPU the rest takes more time to keep than to
    # compute again, and here 22 GB.
    'base': Problem(
        dict(_COMMON, width=768, num_heads=12, mlp_width=3072, num_layers=12,
             max_positions=514, region_feature_dim=2048,
             num_region_classes=1601, remat='input'),
        num_regions=100, text_length=28, task_rows=16, score_rows=32,
        score_pictures=8,
        rounds=5),
    # Multilingual E5 small over EfficientNet's grid: the quickstart's.
    'small': Problem(
        dict(_COMMON, width=384, num_heads=12, mlp_width=1536, num_layers=12,
             max_positions=512, region_feature_dim=1280,
             num_region_classes=1001, remat='input'),
        num_regions=16, text_length=16, task_rows=32, score_rows=256,
        score_pictures=8,
        rounds=9),
    # As much as a chip of 16 GB trains on at once; rows of each device.
    'accelerator': Problem(
        dict(_COMMON, width=768, num_heads=12, mlp_width=3072, num_layers=12,
             max_positions=514, region_feature_dim=2048,
             num_region_classes=1601, remat='projections'),
        num_regions=100, text_length=28, task_rows=64, score_rows=256,
        score_pictures=40, rounds=5),
    # For the tests.
    'tiny': Problem(
        dict(_COMMON, width=16, num_heads=2, mlp_width=32, num_layers=2,
             max_positions=136, region_feature_dim=12, num_region_classes=7,
             embedding_dim=8),
        num_regions=5, text_length=9, task_rows=4, score_rows=4,
        score_pictures=3, rounds=2),
}


class Rows(NamedTuple):
  """Pictures and captions, as NumPy.

  Attributes:
    token_ids_BL: int32; padding is 1.
    text_mask_BL: bool.
    features_BRF: float32.
    boxes_BRG: float32.
    class_ids_BR: int32, from 1 on.
  """
  token_ids_BL: np.ndarray
  text_mask_BL: np.ndarray
  features_BRF: np.ndarray
  boxes_BRG: np.ndarray
  class_ids_BR: np.ndarray


def make_rows(problem: Problem, count: int, *, seed: int) -> Rows:
  """Returns made-up full rows: what they hold does not change what they cost.

  Args:
    problem: their sizes.
    count: B.
    seed: of their content.
  """
  rng = np.random.default_rng(seed)
  shape = (count, problem.text_length)
  ids_BL = rng.integers(1000, 250_000, shape).astype(np.int32)
  ids_BL[:, 0], ids_BL[:, -1] = 0, 2
  text_mask_BL = np.ones(shape, bool)
  shape = (count, problem.num_regions)
  corners = np.sort(rng.random((*shape, 2, 2)), axis=2)
  size = corners[..., 1, :] - corners[..., 0, :]
  boxes_BRG = np.concatenate(
      [corners[..., 0, :], corners[..., 1, :],
       size.prod(-1, keepdims=True)], axis=-1)
  return Rows(
      ids_BL, text_mask_BL,
      rng.normal(size=(*shape, problem.model['region_feature_dim'])).astype(
          np.float32),
      boxes_BRG.astype(np.float32),
      rng.integers(1, problem.model['num_region_classes'], shape).astype(
          np.int32))


def make_captions(count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns ids and mask [B, 64] of captions as long as Multi30k's."""
  counts = json.loads(_LENGTHS.read_text())['counts']
  rng = np.random.default_rng(0)
  lengths_B = rng.choice(
      np.array(list(counts), int), count,
      p=np.array(list(counts.values())) / sum(counts.values()))
  mask_BL = np.arange(RELEASE_LENGTH) < lengths_B[:, np.newaxis]
  ids_BL = np.where(mask_BL, rng.integers(1000, 250_000, mask_BL.shape), 1)
  return ids_BL.astype(np.int32), mask_BL
