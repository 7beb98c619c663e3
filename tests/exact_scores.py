"""The exact engine on made-up pictures.

python -m tests.exact_scores FOLDER PROCESS PORT scores into FOLDER as one of
two hosts.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys

from flax import linen as nn
import jax
import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import exact
from m3p_jax.model import m3p
from tests import models

CONFIG = dataclasses.replace(
    models.TINY, vocab_size=500, num_layers=3, num_languages=1)
NUM_PICTURES, NUM_REGIONS = 21, 5
ORIGIN = {'weights': 'of seed 2'}


@functools.cache
def params():
  """Returns weights that tell pairs apart."""
  return jax.jit(lambda key: nn.unbox(m3p.init_params(CONFIG, key)))(
      jax.random.key(2))


def engine(batch_size: int = 32) -> engine_lib.Engine:
  return engine_lib.Engine(params(), CONFIG, batch_size=batch_size,
                        dtype='float32')


def regions() -> batch_lib.Regions:
  """Returns pictures with 1 to 5 regions, some missing in the middle."""
  found = jax.tree.map(np.asarray, models.batch(
      rows=NUM_PICTURES, num_regions=NUM_REGIONS, seed=3).regions)
  rng = np.random.default_rng(4)
  mask_IR = np.arange(NUM_REGIONS) < rng.integers(
      1, NUM_REGIONS + 1, (NUM_PICTURES, 1))
  mask_IR[7] = [True, False, True, False, True]
  # Even the first may be missing: the match head reads an empty position.
  mask_IR[9] = [False, True, True, False, False]
  return found._replace(mask_BR=mask_IR)


def questions() -> dict[str, exact.Question]:
  """Returns captions of two languages; the second searches fewer pictures."""
  rng = np.random.default_rng(5)
  found = {}
  for name, count, pictures_I in (
      ('en', 11, np.arange(NUM_PICTURES)), ('de', 7, np.arange(0, 21, 2))):
    length_C = rng.integers(3, 20, count)
    mask_CL = np.arange(24) < length_C[:, np.newaxis]
    ids_CL = np.where(mask_CL, rng.integers(4, 499, (count, 24)), 1)
    found[name] = exact.Question(engine_lib.Texts(
        ids_CL.astype(np.int32), mask_CL, None), pictures_I)
  return found


@contextlib.contextmanager
def small_pieces():
  """Makes the few pairs here as many pieces as millions would be."""
  before = exact.PAIRS_PER_PIECE, engine_lib.REGIONS_MULTIPLE
  exact.PAIRS_PER_PIECE, engine_lib.REGIONS_MULTIPLE = 60, 2
  try:
    yield
  finally:
    exact.PAIRS_PER_PIECE, engine_lib.REGIONS_MULTIPLE = before


def score(folder: pathlib.Path | None = None, origin=ORIGIN,
          ) -> dict[str, np.ndarray]:
  """Returns the scores, in small pieces."""
  with small_pieces():
    return exact.scores(
        engine(), regions(), questions(), folder=folder, origin=origin)


if __name__ == '__main__':
  folder, process, port = sys.argv[1:]
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, int(process))
  assert jax.local_device_count() == 4
  score(pathlib.Path(folder))
