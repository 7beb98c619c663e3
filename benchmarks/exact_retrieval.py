"""How many pairs a second the exact engine scores, beside naive batches.

python -m benchmarks.exact_retrieval [--size=base|e5|tiny] [--rounds=5]

Three ways through one model, taken in turns in every round so that what else
the machine does hits all alike: the exact engine; the plain forward pass in
batches padded to the release's 64 ids; the same padded to the longest caption.
Caption lengths are drawn from caption_lengths.json, which tells their source.
The word table is short: rows of it are only looked up. Prints the medians, the
ratios, and the largest difference of the scores.
"""

from collections.abc import Callable
import json
import pathlib
import platform
import sys
import time

from absl import app
from absl import flags
from flax import linen as nn
import jax
import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import engines
from m3p_jax.evaluation import exact
from m3p_jax.model import config as model_config_lib
from m3p_jax.model import m3p

# The release cuts captions at this length when fine-tuning, and pads to it.
RELEASE_LENGTH = 64
TABLE = pathlib.Path(__file__).with_name('caption_lengths.json')
_VOCAB = 1_000
# (width, heads, MLP, layers, regions, features of one).
SIZES = {'base': (768, 12, 3072, 12, 100, 2048),
         'e5': (384, 12, 1536, 12, 9, 1280),
         'tiny': (64, 4, 128, 3, 36, 32)}

_SIZE = flags.DEFINE_enum('size', 'base', list(SIZES), 'Geometry.')
_DTYPE = flags.DEFINE_enum(
    'dtype', 'auto', ['auto', 'float32', 'bfloat16'], 'Of activations.')
_PICTURES = flags.DEFINE_integer('pictures', 8, 'In the gallery.')
_CAPTIONS = flags.DEFINE_integer('captions', 32, 'To score with each.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'Pairs in one pass.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Of which the median is taken.')


def make_texts(count: int, seed: int = 0) -> engines.Texts:
  """Returns captions with lengths drawn from the table, padded to 64 ids."""
  counts = json.loads(TABLE.read_text())['counts']
  rng = np.random.default_rng(seed)
  lengths_C = rng.choice(
      np.array(list(counts), int), count,
      p=np.array(list(counts.values())) / sum(counts.values()))
  mask_CL = np.arange(RELEASE_LENGTH) < lengths_C[:, np.newaxis]
  ids_CL = np.where(mask_CL, rng.integers(4, _VOCAB, mask_CL.shape), 1)
  return engines.Texts(ids_CL.astype(np.int32), mask_CL, None)


def make_regions(count: int, num_regions: int, num_features: int,
                 ) -> batch_lib.Regions:
  """Returns pictures that have every region."""
  rng = np.random.default_rng(1)
  return batch_lib.Regions(
      np.arange(count, dtype=np.int32),
      rng.normal(size=(count, num_regions, num_features)).astype(np.float16),
      rng.uniform(size=(count, num_regions, 5)).astype(np.float32),
      np.ones((count, num_regions), np.int32),
      np.ones((count, num_regions), bool))


def naive(engine: engines.Engine, regions: batch_lib.Regions,
          texts: engines.Texts, length: int) -> Callable[[], np.ndarray]:
  """Returns a function that scores all pairs [C, I] in padded batches."""

  def match(model, image_B, token_ids_BL, text_mask_BL, regions):
    batch = batch_lib.Batch(
        token_ids_BL, text_mask_BL, None,
        jax.tree.map(lambda x: x[image_B], regions))
    return model.match_logits(model.encode(batch, deterministic=True))

  module = m3p.M3P(engine.config, model_config_lib.Options(
      dtype=model_config_lib.number_format(_DTYPE.value)))
  step = jax.jit(nn.apply(match, module))
  resident = jax.device_put(regions)
  num_captions, num_pictures = len(texts.token_ids_CL), len(regions.mask_BR)
  text_P, image_P = np.divmod(
      np.arange(num_captions * num_pictures), num_pictures)

  def run() -> np.ndarray:
    parts = []
    for start in range(0, len(text_P), engine.batch_size):
      chosen = slice(start, start + engine.batch_size)
      parts.append(step(
          {'params': engine.params}, image_P[chosen],
          texts.token_ids_CL[text_P[chosen], :length],
          texts.text_mask_CL[text_P[chosen], :length], resident))
    return np.concatenate([np.asarray(part) for part in parts]).reshape(
        num_captions, num_pictures)

  return run


def measure(ways: dict[str, Callable[[], np.ndarray]], rounds: int,
            ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Returns each way's scores, and its seconds in every round."""
  scores = {name: way() for name, way in ways.items()}  # Compiles.
  seconds: dict[str, list[float]] = {name: [] for name in ways}
  for number in range(rounds):
    for name, way in ways.items():
      start = time.perf_counter()
      way()
      seconds[name].append(time.perf_counter() - start)
    print(f'round {number + 1}/{rounds}: ' + ', '.join(
        f'{name} {seconds[name][-1]:.2f} s' for name in ways),
          file=sys.stderr, flush=True)
  return scores, {name: np.array(one) for name, one in seconds.items()}


def main(argv: list[str]) -> None:
  """Measures, and prints one line of JSON."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}')
  width, heads, mlp, num_layers, num_regions, num_features = SIZES[_SIZE.value]
  config = model_config_lib.ModelConfig(
      vocab_size=_VOCAB, width=width, num_heads=heads, mlp_width=mlp,
      num_layers=num_layers, region_feature_dim=num_features,
      num_languages=1)
  params = jax.jit(lambda key: nn.unbox(m3p.init_params(config, key)))(
      jax.random.key(0))
  engine = engines.Engine(params, config, batch_size=_BATCH_SIZE.value,
                          dtype=_DTYPE.value)
  regions = make_regions(_PICTURES.value, num_regions, num_features)
  texts = make_texts(_CAPTIONS.value)
  longest = int(texts.text_mask_CL.sum(1).max())
  question = exact.Question(texts, np.arange(_PICTURES.value))
  scores, seconds = measure({
      'exact': lambda: exact.scores(engine, regions, {'': question})[''],
      'padded_to_64': naive(engine, regions, texts, RELEASE_LENGTH),
      'padded_to_longest': naive(engine, regions, texts, longest),
  }, _ROUNDS.value)
  num_pairs = scores['exact'].size
  print(json.dumps({
      'size': _SIZE.value,
      'dtype': model_config_lib.number_format(_DTYPE.value),
      'device': f'{jax.device_count()} x {jax.devices()[0].device_kind} '
                f'({platform.processor() or platform.machine()})',
      'pairs': num_pairs, 'batch_size': _BATCH_SIZE.value,
      'mean_length': float(texts.text_mask_CL.sum(1).mean()),
      'longest': longest,
      'pairs_per_second': {
          name: round(num_pairs / float(np.median(one)), 2)
          for name, one in seconds.items()},
      'times_faster_than': {
          name: round(float(np.median(one / seconds['exact'])), 3)
          for name, one in seconds.items() if name != 'exact'},
      'largest_difference': float(np.abs(
          scores['exact'] - scores['padded_to_64']).max())}, indent=1))


if __name__ == '__main__':
  app.run(main)
