"""How the exact engine cuts its work: blocks of pictures, padded lengths.

Letters: I pictures, N numbers.
"""

import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax.model import config as model_config

# A run that is killed loses one piece: so many pairs, or one in so many of
# them all where that is more.
PAIRS_PER_PIECE, MOST_PIECES = 4_096, 1_000
# Every length of captions with every number of regions is compiled, and padded
# to no further than that pays: the operations that a device, or all cores of a
# CPU, could do meanwhile.
COMPILING_FLOPS = {'cpu': 1e12, 'gpu': 1e14, 'tpu': 1e14}
# Blocks are as even on 1 device as on 8, so that pieces are the same.
_BLOCK_MULTIPLE = 8


def count_regions(regions: batch_lib.Regions) -> np.ndarray:
  """Returns how many columns each picture needs, int [I].

  Position 0, which the match head reads, is needed even where it is padding.
  """
  mask_IR = np.asarray(regions.mask_BR)
  return mask_IR.sum(1) + ~mask_IR[:, 0]


def block_size(num_pictures: int, num_captions: int) -> int:
  """Returns how many pictures a piece has.

  Args:
    num_pictures: of the largest gallery.
    num_captions: of the language that has most. All languages share one size,
      for every size is compiled.
  """
  pairs = max(PAIRS_PER_PIECE, num_captions * num_pictures // MOST_PIECES)
  size = max(1, min(pairs // num_captions, num_pictures))
  size = -(-num_pictures // -(-num_pictures // size))
  return -(-size // _BLOCK_MULTIPLE) * _BLOCK_MULTIPLE


def blocks(pictures_I: np.ndarray, counts_I: np.ndarray, *,
           size: int) -> list[np.ndarray]:
  """Returns the pictures of each piece, those with as many regions together.

  Args:
    pictures_I: int, the pictures to score.
    counts_I: `count_regions` of all pictures.
    size: of all pieces but the last.
  """
  order_I = pictures_I[np.argsort(-counts_I[pictures_I], kind='stable')]
  return [order_I[start:start + size]
          for start in range(0, len(order_I), size)]


def padded_size(count: int, *, size: int, num_devices: int) -> int:
  """Returns how many rows a block of `count` pictures is computed with.

  A last block gets a power of two: at most twice its pictures, and few sizes.
  """
  rows = min(size, max(_BLOCK_MULTIPLE, 1 << (count - 1).bit_length()))
  return -(-rows // num_devices) * num_devices


def places_to_compile(c: model_config.ModelConfig, num_devices: int) -> float:
  """Returns how many places of pairs take as long as compiling one shape."""
  flops = 2.0 * c.num_layers * (4 * c.width ** 2 + 2 * c.width * c.mlp_width)
  platform = c.resolved_platform
  return COMPILING_FLOPS[platform] * (
      1 if platform == 'cpu' else num_devices) / flops


def choose_lengths(count_N: np.ndarray, price: float) -> list[int]:
  """Returns the lengths for which padding and price together are the least.

  Each number is padded to the next length; the largest is one of them.
  Example: [3, 3, 4, 9] and 3 give [4, 9], which pad to 4 + 4 + 4 + 9.

  Args:
    count_N: int, the lengths that occur; at least one.
    price: of one more length, in padded places; above 0.
  """
  values, counts = np.unique(count_N, return_counts=True)
  before = np.concatenate([[0], np.cumsum(counts)])
  # best[e]: what the values before e cost, and the lengths chosen for them.
  best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
  for end in range(1, len(values) + 1):
    length = int(values[end - 1])
    best.append(min(
        (cost + price + length * int(before[end] - before[start]),
         (*chosen, length))
        for start, (cost, chosen) in enumerate(best)))
  return list(best[-1][1])
