"""Properties of rows of text read from records, and what they take."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import errors
from input_pipeline import index as index_lib
from input_pipeline import prepare
from input_pipeline import records
from input_pipeline import store
from input_pipeline import streamed
from input_pipeline import tokenizer
from tests import toy

_WIDTH = 10


@pytest.fixture(params=[7, 2048], ids=['short records', 'long records'])
def written(request, monkeypatch, tmp_path):
  """Returns sentences (language, ids), and the index of two files of them."""
  monkeypatch.setattr(records, '_TEXT_IDS', request.param)
  draw = np.random.default_rng(0)
  sentences = [
      (toy.LANGUAGES[draw.integers(3)],
       draw.integers(4, 250_000, draw.integers(1, 30)).tolist())
      for _ in range(90)]
  features, paths = records.text_features(), []
  for number, part in enumerate((sentences[:40], sentences[40:])):
    paths.append(str(tmp_path / f'{number}.tfrecord'))
    with tf.io.TFRecordWriter(paths[-1]) as writer:
      for record in records.pack_texts(part):
        writer.write(features.serialize_example(
            features.encode_example(record)))
  return sentences, index_lib.join(list(map(index_lib.scan, paths)))


def _rows(index, languages, *, width):
  """Returns {language: its rows}, asked for in no order."""
  found = streamed.text_rows([index], languages, width=width, parallel=4)
  asked = [(stream, row) for stream, size in enumerate(found.sizes)
           for row in range(size)]
  order = np.random.default_rng(1).permutation(len(asked))
  stream_B, row_B = map(tf.constant, np.array(asked)[order].T)
  ids = tf.function(found.fetch)(stream_B, row_B).to_list()
  rows = dict(zip(map(tuple, np.array(asked)[order].tolist()), ids,
                  strict=True))
  return {language: [rows[stream, row] for row in range(found.sizes[stream])]
          for stream, language in enumerate(found.languages)}


def test_every_sentence_is_found_by_its_number(written):
  sentences, index = written
  assert _rows(index, ['de', 'en'], width=0) == {
      language: [ids for name, ids in sentences if name == language]
      for language in ('de', 'en')}


def test_full_rows_hold_every_token_in_order(written):
  sentences, index = written
  for language, rows in _rows(index, toy.LANGUAGES, width=_WIDTH).items():
    np.testing.assert_array_equal(np.concatenate(rows), np.concatenate(
        [[*ids, tokenizer.EOS] for name, ids in sentences
         if name == language]))
    assert {len(row) for row in rows[:-1]} == {_WIDTH}
    assert 0 < len(rows[-1]) <= _WIDTH


_READ = '''
import resource, sys
import ml_collections
from configs import base
from input_pipeline import pipeline
data = base.get_config().data
data.data_dir, data.text.datasets = sys.argv[1], ('text',)
data.text.concatenate = True
rows = iter(pipeline.build(data, ml_collections.ConfigDict({
    'xmlm': base.task_config('masked_lm', 'text', 64)}), seed=0))
for _ in range(50):
  next(rows)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
'''


def test_memory_does_not_grow_with_the_text(tmp_path):
  (tmp_path / 'raw').mkdir()
  text = '\n'.join(f'Sentence {i} of many: a dog and {i % 97} cats.'
                   for i in range(30_000))
  (tmp_path / 'raw' / 'en.txt').write_text(text)
  folder = prepare.prepare('text', str(tmp_path), raw_dir=str(tmp_path / 'raw'))
  (path,) = folder.rglob('*-train.tfrecord-*')
  index = path.parent / index_lib.file_name('train')
  assert path.stat().st_size + index.stat().st_size < 1.3 * len(text)
  taken = []
  for times in (1, 10):
    path.write_bytes(path.read_bytes() * times)
    index.unlink(missing_ok=True)  # It is made again.
    taken.append(int(subprocess.run(
        [sys.executable, '-c', _READ, str(tmp_path)], check=True, text=True,
        capture_output=True).stdout))
  assert taken[1] < 1.05 * taken[0]


def test_text_of_version_1_names_the_command(tmp_path):
  toy.write(tmp_path / 'old', tfds.features.FeaturesDict({
      'language': tfds.features.Text(), 'text': tfds.features.Text(),
      'ids': tfds.features.Sequence(np.int32)}), {
          'train': [{'language': 'en', 'text': 'a dog', 'ids': [5, 6]}]})
  with pytest.raises(errors.UserError, match='prepare --dataset=old'):
    store.open_index(store.open_builder(tmp_path, 'old'), 'train',
                     column='ids')
