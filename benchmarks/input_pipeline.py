"""How fast training is fed: rows against a plain read of the same records.

python -m benchmarks.input_pipeline [--pictures=1000 --storage=float16]

Writes made-up records (100 regions of 2,048 numbers, an English caption of ten
words; sentences of thirty tokens), then times in turn, several times over:
a plain sequential read of the records, and the pipeline's batches of the same
records. Prints the ratios of medians, and the time of all cores together,
which other programs on the machine disturb less. Freed memory is kept for the
next batch, as training on a CPU does: the plain read gains by it too.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import pathlib
import random
import statistics
import sys
import tempfile
from typing import Any
import zlib

from absl import flags
from absl import logging
import ml_collections
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from benchmarks import contest
from configs import base
from input_pipeline import captions
from input_pipeline import dictionaries
from input_pipeline import errors
from input_pipeline import pipeline
from input_pipeline import records
from input_pipeline.building import builder
from input_pipeline.building import shards
from input_pipeline.record_files import prepared

_REGIONS, _FEATURE_DIM = 100, 2048
_WORDS = [f'word{i}' for i in range(3000)]
_SHARD_PICTURES = 256
# Sentences are so quick that as many batches as of pictures would be over
# before what other streams are still making ahead is.
_TEXT_BATCHES = 16
# Batches that tf.data may have ready.
_MADE_AHEAD = 8
# What is timed → dataset, stream of the pipeline ('' = a plain read), and rate
# of code-switching.
_SOURCES = {
    'plain read of pictures': ('pictures', '', 0.),
    'image_text': ('pictures', 'image_text', 0.),
    'image_text, switched': ('pictures', 'image_text', .5),
    'plain read of texts': ('texts', '', 0.),
    'text': ('texts', 'text', 0.)}


class _Tokenizer:
  """Two tokens a word, as XLM-R has on average."""

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    return [[10 + zlib.crc32(text.encode()) % 200_000, 10 + len(text)]
            for text in texts]


def _picture(draw: random.Random, features: np.ndarray, encoder,
             number: int, storage: str) -> dict[str, Any]:
  texts = [('en', ' '.join(draw.choices(_WORDS, k=10)))]
  return {
      'image_id': f'{number:09d}', 'group': f'{number:09d}', 'height': 480,
      'width': 640,
      'boxes': np.tile(np.float32([10, 20, 300, 400]), (_REGIONS, 1)),
      'class_ids': np.arange(_REGIONS, dtype=np.int32),
      'captions': encoder.encode(texts),
      **records.pack_features(features, storage)}


def _sentence(draw: random.Random, number: int) -> dict[str, Any]:
  return {'text_id': f'{number:09d}', 'language': 'en', 'text': 'x' * 100,
          'ids': [draw.randrange(10, 250_000) for _ in range(30)]}


def _write(folder: pathlib.Path, features, split_items: int, count: int,
           make: Callable[[int], dict[str, Any]]) -> None:
  """Writes a prepared dataset of made-up records."""

  class Builder(tfds.core.dataset_builder.FileReaderBuilder,
                skip_registration=True):  # type: ignore[call-arg]
    """Records of `make`."""
    VERSION = tfds.core.Version('1.0.0')
    code_path = None
    name = folder.name

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _download_and_prepare(self, dl_manager, download_config=None):
      del dl_manager, download_config
      items = (builder.TextItem(str(i), 'train', '', '') for i in range(count))
      draft = folder / 'shards'
      draft.mkdir()
      for shard in shards.cut(items, split_items):
        shards.write(
            draft, shard, lambda found, report: (
                make(int(item.text_id)) for item in found), features)
      shards.assemble(draft, self, pathlib.Path(self.data_dir))

  folder.mkdir(parents=True)
  tfds.disable_progress_bar()
  Builder(data_dir=folder).download_and_prepare()
  (folder / 'manifest.json').write_text('{}')


def make_data(folder: pathlib.Path, num_pictures: int, num_texts: int,
              storage: str) -> None:
  """Writes pictures, sentences and a dictionary."""
  draw, random_state = random.Random(0), np.random.default_rng(0)
  encoder = captions.Encoder(_Tokenizer())
  bank = random_state.gamma(
      1., size=(4 * _REGIONS, _FEATURE_DIM)).astype(np.float16)
  _write(folder / 'pictures', records.image_text_features(
      _FEATURE_DIM, storage), _SHARD_PICTURES, num_pictures,
         lambda i: _picture(draw, bank[i % 300:i % 300 + _REGIONS], encoder, i,
                            storage))
  _write(folder / 'texts', records.text_features(), 65_536, num_texts,
         lambda i: _sentence(draw, i))
  target = folder / dictionaries.FOLDER / 'de.npz'
  target.parent.mkdir(parents=True)
  dictionaries.write({word: [[12, 13, 14]] for word in _WORDS[::2]}, target)


def _config(folder: pathlib.Path, rate: float) -> ml_collections.ConfigDict:
  data = base.get_config().data
  data.data_dir = str(folder)
  data.languages = ('en', 'de')
  data.text.datasets = ('texts',)
  data.image_text.datasets = ('pictures',)
  data.image_text.memory_bytes = 0
  data.image_text.code_switch.rate = rate
  data.image_text.code_switch.languages = ('de',)
  return data


def _batches(folder: pathlib.Path, stream: str, batch_size: int,
             rate: float = 0.) -> Iterator[Any]:
  tasks = ml_collections.ConfigDict({
      'task': base.task_config('masked_lm', stream, batch_size)})
  return iter(pipeline.build(_config(folder, rate), tasks, seed=0))


def _plain(folder: pathlib.Path, dataset: str, batch: int) -> Iterator[Any]:
  """Returns the serialised records in files' order, again and again."""
  found = prepared.open_builder(folder, dataset, 'train')
  return iter(tf.data.TFRecordDataset(
      list(map(str, found.info.splits['train'].filepaths))).repeat().batch(
          batch))


def source(folder: str, name: str, *, batch_size: int,
           batches: int) -> dict[str, contest.Run]:
  """Returns {name: a run through `batches` batches of a key of `_SOURCES`}.

  Of sentences `_TEXT_BATCHES` times as many, each 16 times as large.
  """
  dataset, stream, rate = _SOURCES[name]
  if dataset == 'texts':
    batch_size, batches = 16 * batch_size, _TEXT_BATCHES * batches
  path = pathlib.Path(folder)
  iterator = (_batches(path, stream, batch_size, rate) if stream
              else _plain(path, dataset, batch_size))

  def run():
    # What was made ahead while others were timed does not count.
    return contest.timed(iterator, batches, _MADE_AHEAD) | {
        'rows': batches * batch_size}

  return {name: run}


def measure(folder: pathlib.Path, *, rounds: int, batch_size: int,
            batches: int) -> dict[str, Any]:
  """Returns medians over rounds, in each of which all take turns.

  Each is a process of its own: in one, the memory that a plain read frees in
  small pieces slows the batches made after it.
  """
  with contextlib.ExitStack() as stack:
    timings = contest.take_turns({
        name: (stack.enter_context(contest.Process(
            'benchmarks.input_pipeline:source', folder=str(folder), name=name,
            batch_size=batch_size, batches=batches)), name)
        for name in _SOURCES}, rounds=rounds)

  def ratio(slow: str, fast: str, field: str = 'seconds') -> float:
    return round(contest.compare(*(
        [getattr(timing, field) for timing in timings[name]]
        for name in (slow, fast))).value, 3)

  def each_row(field: str) -> dict[str, float]:
    return {name: statistics.median(
        getattr(timing, field) / timing.numbers['rows'] for timing in found)
            for name, found in timings.items()}

  return {
      'rows a second': {name: round(1 / seconds) for name, seconds
                        in each_row('seconds').items()},
      'microseconds of a core a row': {
          name: round(1e6 * seconds, 2) for name, seconds
          in each_row('cpu_seconds').items()},
      'image_text / plain read': ratio('image_text', 'plain read of pictures'),
      'text / plain read': ratio('text', 'plain read of texts'),
      'cost of code-switching': round(
          1 - ratio('image_text, switched', 'image_text'), 3),
      'cost of code-switching, of core time': round(
          1 - ratio('image_text, switched', 'image_text', 'cpu_seconds'), 3)}


def main(argv: Sequence[str]) -> None:
  """Prints the measurements as JSON."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  args = flags.FLAGS
  logging.set_verbosity(logging.ERROR)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    make_data(folder, args.pictures, 100 * args.pictures, args.storage)
    used = sum(path.stat().st_size
               for path in (folder / 'pictures').rglob('*') if path.is_file())
    raw = args.pictures * _REGIONS * _FEATURE_DIM * 2
    print('records written', file=sys.stderr)
    found = measure(folder, rounds=args.rounds, batch_size=args.batch_size,
                    batches=args.batches)
    print(json.dumps({
        'storage': args.storage, 'bytes / raw float16': round(used / raw, 4),
        **found}, indent=2))


if __name__ == '__main__':
  flags.DEFINE_integer('pictures', 1000, 'Pictures (0.4 MB each).',
                       lower_bound=64)
  flags.DEFINE_integer('rounds', 7, 'Times that each is measured.',
                       lower_bound=1)
  flags.DEFINE_integer('batches', 16, 'Batches each time.', lower_bound=1)
  flags.DEFINE_integer('batch_size', 64, 'Pictures a batch; 16 times as many '
                       'sentences.', lower_bound=1)
  flags.DEFINE_enum('storage', 'float16', records.STORAGE, 'Of the features.')
  errors.run_main(main)
