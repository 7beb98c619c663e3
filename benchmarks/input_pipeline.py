"""Our input pipeline against a torch DataLoader, and a plain read of records.

Made-up records (100 regions of 2,048 numbers, an English caption of ten words;
sentences of thirty tokens, cut into rows of 128). The DataLoader reads the same
features in VOLTA's layout: one h5 group a picture, uncompressed float32, in
shuffled order, with two workers. Each contender is a process of its own: in
one, the memory that a plain read frees in small pieces slows the batches made
after it.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import pathlib
import random
import tempfile
from typing import Any
import zlib

import ml_collections
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from benchmarks import contest
from benchmarks import report
from configs import base
from input_pipeline import builder
from input_pipeline import dictionaries
from input_pipeline import pipeline
from input_pipeline import records
from input_pipeline import shards
from input_pipeline import store
from input_pipeline import tokenizer as tokenizer_lib

_REGIONS, _FEATURE_DIM = 100, 2048
_WORDS = [f'word{i}' for i in range(3000)]
_PICTURES, _TEXTS, _SHARD_PICTURES = 512, 51_200, 256
_BATCH_SIZE, _BATCHES, _ROUNDS = 64, 16, 7
# Batches that either side may have made while it rested; not counted.
_MADE_AHEAD = 10
# What is timed → dataset, stream of the pipeline ('' = a plain read), rate of
# code-switching, and bytes of memory that the records may take (None = as
# many as they need).
_SOURCES = {
    'plain read of pictures': ('pictures', '', 0., 0),
    'in memory': ('pictures', 'image_text', 0., None),
    'streamed': ('pictures', 'image_text', 0., 0),
    'code-switched': ('pictures', 'image_text', .5, 0),
    'plain read of records of text': ('texts', '', 0., 0),
    'text': ('texts', 'text', 0., 0)}
# (ours, what it is compared with, ratio wanted); '' = PyTorch's loader.
_PAIRS = (('in memory', '', 5.), ('streamed', '', 5.),
          ('streamed', 'plain read of pictures', None),
          ('code-switched', 'streamed', None),
          ('text', 'plain read of records of text', None))


def measure(sizes: Sequence[str]) -> list[report.Row]:
  """Returns the rows, whatever the sizes."""
  del sizes
  with (tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack):
    make_data(pathlib.Path(folder), _PICTURES, _TEXTS)
    contenders = {
        name: (stack.enter_context(contest.Process(
            'benchmarks.input_pipeline:source', folder=folder, name=name)),
               name) for name in _SOURCES}
    loader = stack.enter_context(contest.Process(
        'benchmarks.against_pytorch.loading:variants', folder=folder,
        pictures=_PICTURES, batch_size=_BATCH_SIZE, batches=_BATCHES,
        made_ahead=_MADE_AHEAD))
    (loader_name,) = loader.names
    timings = contest.take_turns(
        contenders | {loader_name: (loader, loader_name)}, rounds=_ROUNDS)
  return rows(timings, loader_name)


def rows(timings: dict[str, list[contest.Timing]],
         loader_name: str) -> list[report.Row]:
  """Returns the rows of what was timed."""
  seconds = {name: [timing.seconds for timing in found]
             for name, found in timings.items()}
  return [report.rate(
      f'input pipeline, {ours}', other or loader_name,
      contest.compare(seconds[ours], seconds[other or loader_name]),
      count=timings[ours][0].numbers['rows'], unit='rows/s', wanted=wanted)
          for ours, other, wanted in _PAIRS]


def source(folder: str, name: str) -> dict[str, contest.Run]:
  """Returns {name: a run through the batches of a key of `_SOURCES`}.

  Those of text are 16 times as large.
  """
  dataset, stream, rate, memory_bytes = _SOURCES[name]
  batch_size, batches = _BATCH_SIZE, _BATCHES
  if dataset == 'texts':
    batch_size *= 16
  path = pathlib.Path(folder)
  if stream:
    tasks = ml_collections.ConfigDict({
        'task': base.task_config('masked_lm', stream, batch_size)})
    iterator = iter(pipeline.build(
        _config(path, rate, memory_bytes), tasks, seed=0))
  else:
    iterator = _plain(path, dataset, batch_size)
  # What was made ahead while others were timed does not count.
  return {name: lambda: contest.timed(iterator, batches, _MADE_AHEAD) | {
      'rows': batches * batch_size}}


def _config(folder: pathlib.Path, rate: float, memory_bytes: int | None,
            ) -> ml_collections.ConfigDict:
  data = base.get_config().data
  data.data_dir = str(folder)
  data.languages = ('en', 'de')
  data.text.datasets, data.text.concatenate = ('texts',), True
  data.image_text.datasets = ('pictures',)
  if memory_bytes is not None:
    data.image_text.memory_bytes = memory_bytes
  data.image_text.code_switch.rate = rate
  data.image_text.code_switch.languages = ('de',)
  return data


def _plain(folder: pathlib.Path, dataset: str, batch: int) -> Iterator[Any]:
  """Returns the serialised records in files' order, again and again."""
  found = store.open_builder(folder, dataset, 'train')
  return iter(tf.data.TFRecordDataset(
      list(map(str, found.info.splits['train'].filepaths))).repeat().batch(
          batch))


def make_data(folder: pathlib.Path, num_pictures: int, num_texts: int) -> None:
  """Writes pictures, sentences and a dictionary."""
  draw, random_state = random.Random(0), np.random.default_rng(0)
  encoder = tokenizer_lib.CaptionEncoder(_Tokenizer())
  bank = random_state.gamma(
      1., size=(4 * _REGIONS, _FEATURE_DIM)).astype(np.float16)
  _write(folder / 'pictures', records.image_text_features(
      _FEATURE_DIM, 'float16'), _SHARD_PICTURES, num_pictures,
         lambda i: _picture(draw, bank[i % 300:i % 300 + _REGIONS], encoder, i))
  _write(folder / 'texts', records.text_features(), 65_536, num_texts,
         lambda i: _sentence(draw), records.pack_texts)
  target = folder / dictionaries.FOLDER / 'de.npz'
  target.parent.mkdir(parents=True)
  dictionaries.write({word: [[12, 13, 14]] for word in _WORDS[::2]}, target)


class _Tokenizer:
  """Two tokens a word, as XLM-R has on average."""

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    return [[10 + zlib.crc32(text.encode()) % 200_000, 10 + len(text)]
            for text in texts]


def _picture(draw: random.Random, features: np.ndarray, encoder,
             number: int) -> dict[str, Any]:
  texts = [('en', ' '.join(draw.choices(_WORDS, k=10)))]
  return {
      'image_id': f'{number:09d}', 'group': f'{number:09d}', 'height': 480,
      'width': 640,
      'boxes': np.tile(np.float32([10, 20, 300, 400]), (_REGIONS, 1)),
      'class_ids': np.arange(_REGIONS, dtype=np.int32),
      'captions': encoder.encode(texts),
      **records.pack_features(features, 'float16')}


def _sentence(draw: random.Random) -> tuple[str, list[int]]:
  return 'en', [draw.randrange(10, 250_000) for _ in range(30)]


def _write(folder: pathlib.Path, features, split_items: int, count: int,
           make: Callable[[int], Any], pack: Callable = iter) -> None:
  """Writes a prepared dataset of made-up items, packed into records."""

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
            draft, shard, lambda found, report: pack(
                make(int(item.text_id)) for item in found), features)
      shards.assemble(draft, self, pathlib.Path(self.data_dir))

  folder.mkdir(parents=True)
  tfds.disable_progress_bar()
  Builder(data_dir=folder).download_and_prepare()
  (folder / 'manifest.json').write_text('{}')
