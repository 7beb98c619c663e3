"""Two-stage retrieval against the exact engine, and how its cost grows.

A gallery's vectors are those of made-up pictures, repeated; the joint encoder
reads a candidate's regions.
"""

from collections.abc import Sequence
import functools

import jax
import numpy as np

from benchmarks import contest
from benchmarks import ours
from benchmarks import problems
from benchmarks import report
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import exact

SIZE = 'small'
GALLERIES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
_EXACT = 2_000
_QUERIES = 8
# Of them, how many the exact engine answers: its cost is that of each pair.
_EXACT_QUERIES = 2
_TOP_K = 20
_ROUNDS = 3


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns a row for each gallery; always of the small size."""
  del sizes
  with contest.Process('benchmarks.two_stage:variants') as process:
    timings = contest.take_turns(
        {name: (process, name) for name in process.names}, rounds=_ROUNDS)
  seconds = {name: [timing.seconds for timing in found]
             for name, found in timings.items()}
  exact_seconds = seconds.pop('exact')
  rows = []
  for count in GALLERIES:
    # The exact engine's cost is the number of pairs: measured once, scaled.
    scaled = [one * count / _EXACT * _QUERIES / _EXACT_QUERIES
              for one in exact_seconds]
    rows.append(report.rate(
        f'two-stage retrieval, {count:,} pictures', 'exact engine'
        + ('' if count == _EXACT else f', scaled from {_EXACT:,}'),
        contest.compare(seconds[str(count)], scaled), count=_QUERIES,
        unit='queries/s', wanted=20.0 if count == _EXACT else None))
  return rows


def variants() -> dict[str, contest.Run]:
  """Returns {'exact' or the gallery's size: all queries answered once}."""
  problem = problems.PROBLEMS[SIZE]
  engine = ours.make_engine(problem)
  regions = jax.tree.map(np.asarray, ours.as_batch(problems.make_rows(
      problem, _EXACT, seed=1)).regions)
  texts = engine_lib.Texts(*problems.make_captions(_QUERIES), None)
  vectors_IE = engine.embed_images(regions)
  rng = np.random.default_rng(0)
  repeats = -(-max(GALLERIES) // _EXACT)
  gallery_IE = np.tile(vectors_IE, (repeats, 1))
  # Copies differ a little, as pictures do: no ties.
  gallery_IE += rng.normal(0, 1e-3, gallery_IE.shape).astype(np.float32)
  runs: dict[str, contest.Run] = {'exact': functools.partial(
      _exact, engine, regions,
      jax.tree.map(lambda x: x[:_EXACT_QUERIES], texts))}
  return runs | {str(count): functools.partial(
      _two_stages, engine, regions, texts, gallery_IE[:count])
                 for count in GALLERIES}


def _exact(engine: engine_lib.Engine, regions, texts: engine_lib.Texts) -> None:
  question = exact.Question(texts, np.arange(_EXACT))
  exact.scores(engine, regions, {'': question})


def _two_stages(engine: engine_lib.Engine, regions, texts: engine_lib.Texts,
                gallery_IE: np.ndarray) -> None:
  cosine_QI = engine.embed_texts(texts) @ gallery_IE.T
  best_QK = np.argpartition(-cosine_QI, _TOP_K, axis=1)[:, :_TOP_K]
  engine.match(regions, texts, best_QK.ravel() % _EXACT,
               np.repeat(np.arange(_QUERIES), _TOP_K))


