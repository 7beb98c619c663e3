"""A small prepared data folder: made up, written with the project's schemas.

Captions are words out of `WORDS`; the toy tokenizer gives each letter an id,
so that a row's ids can be read back.
"""

import functools
import json
import pathlib
import random
import tempfile

import numpy as np
import tensorflow_datasets as tfds

from configs import base
from input_pipeline import dictionaries
from input_pipeline import records
from input_pipeline import regions
from input_pipeline import tokenizer as tokenizer_lib
from input_pipeline.vision import efficientnet
from input_pipeline.vision import pictures

WORDS = ('red', 'apple', 'fire', 'engine', 'house', 'mouse', 'big', 'dog')
# Translations are in capitals: no caption has them.
ENTRIES = {
    'red': ['ROT', 'R'], 'apple': ['APFEL'], 'fire': ['FEUER'],
    'fire engine': ['LOESCHZUG'], 'big red house': ['GRH'], 'house': ['HAUS']}
TRANSLATABLE = ('red', 'apple', 'fire', 'house')
LANGUAGES = ('en', 'de', 'fr')
LABELS = ('red', 'big', 'other')
FEATURE_DIM = 8
_FIRST_ID = 10


class Extractor:
  """One to three regions whose features say how bright the picture is."""
  manifest = {'name': 'toy'}
  feature_dim = efficientnet.FEATURE_DIM

  def __init__(self, **kwargs):
    del kwargs

  def cut(self, picture):
    return pictures.cut_tile(picture, 32)

  def extract(self, images):
    return [self._regions(tile) for tile in images]

  def _regions(self, tile):
    count = 1 + tile.width % 3
    return regions.RegionSet(
        np.full((count, self.feature_dim), tile.pixels_SS3.mean() / 255,
                np.float16),
        np.array([[0, 0, tile.width, tile.height]] * count, np.float32),
        np.arange(1, count + 1, dtype=np.int32), tile.height, tile.width)


class Tokenizer:
  """One id a character."""

  def encode_batch(self, texts: list[str]) -> list[list[int]]:
    return [encode(text) for text in texts]


def encode(text: str) -> list[int]:
  """Returns the ids of a word."""
  return [ord(c) + _FIRST_ID for c in text]


def decode(ids) -> str:
  """Returns the text of ids, words run together."""
  return ''.join(chr(i - _FIRST_ID) for i in ids if i >= _FIRST_ID)


def caption_record(texts: list[tuple[str, str]]) -> list[dict]:
  """Returns captions as records hold them."""
  return tokenizer_lib.CaptionEncoder(Tokenizer()).encode(texts)


@functools.cache
def data_dir() -> pathlib.Path:
  """Returns a folder with `pairs` (en de fr), `english`, `sentences`.

  And `packed`, the pictures of `english` stored as int8; `labelled`, whose
  captions have three classes, by their words; `twins`, pairs of pictures with
  such captions; `translated`, the texts of `pairs` without a picture.
  """
  folder = pathlib.Path(_temporary().name)
  draw = random.Random(0)
  write(folder / 'pairs', records.image_text_features(FEATURE_DIM),
         {split: [_picture(draw, i, LANGUAGES if i % 3 else ('en',))
                  for i in range(n)]
          for split, n in (('train', 60), ('validation', 8), ('test', 9))})
  english = {split: [_picture(draw, i, ('en',), num_regions=2)
                     for i in range(n)]
             for split, n in (('train', 20), ('validation', 4), ('test', 4))}
  write(folder / 'english', records.image_text_features(FEATURE_DIM), english)
  write(folder / 'packed', records.image_text_features(FEATURE_DIM, 'int8'),
         {split: [row | records.pack_features(row['features'], 'int8')
                  for row in rows] for split, rows in english.items()})
  write(folder / 'sentences', records.text_features(),
         {split: list(records.pack_texts(_sentence(draw, i) for i in range(n)))
          for split, n in (('train', 50), ('validation', 6), ('test', 6))})
  labelled = {split: [_labelled(draw, i) for i in range(n)]
              for split, n in (('train', 20), ('train_5', 5),
                               ('validation', 4), ('test', 6))}
  write(folder / 'labelled', records.image_text_features(
      FEATURE_DIM, has_labels=True), labelled, labels=LABELS)
  write(folder / 'twins', records.image_text_features(
      FEATURE_DIM, 'float16', 2, has_labels=True), {
          split: [row | {'second': _regions(90 - i, 3)}
                  for i, row in enumerate(rows)]
          for split, rows in labelled.items()}, labels=LABELS)
  write(folder / 'translated', records.image_text_features(
      0, num_pictures=0), {
      split: [{key: row[key] for key in ('image_id', 'group', 'captions')}
              for row in (_picture(draw, i, LANGUAGES if i % 3 else ('en',))
                          for i in range(n))]
      for split, n in (('train', 30), ('validation', 4))})
  target = folder / dictionaries.FOLDER
  target.mkdir(parents=True)
  for language in LANGUAGES[1:]:
    dictionaries.write({phrase: [encode(text) for text in found]
                        for phrase, found in ENTRIES.items()},
                       target / f'{language}.npz')
  return folder


def config(*tasks, **changes):
  """Returns a config of two steps of a tiny model on these data.

  One layer and no dropout: another layer is a second program to compile, and
  so are the masks of dropout, together two thirds of a step's compilation.

  Args:
    *tasks: (objective, options), of four rows.
    **changes: dotted keys, `__` for a dot.
  """
  made = base.get_config()
  made.model.update(dict(
      width=8, num_heads=2, mlp_width=16, num_layers=1, max_positions=40,
      region_feature_dim=FEATURE_DIM, num_region_classes=6,
      num_languages=3, embedding_dim=8, dropout=0.0, attention_dropout=0.0,
      dtype='float32'))
  data = made.data
  data.data_dir, data.languages = str(data_dir()), LANGUAGES
  data.text.datasets, data.text.languages = ('sentences',), ('en', 'de')
  data.text.max_length = data.image_text.max_length = 16
  data.image_text.datasets = ('pairs', 'english')
  data.image_text.languages = LANGUAGES
  data.image_text.code_switch.languages = ('de', 'fr')
  for objective, options in tasks or [('masked_lm', {})]:
    options = dict(options)
    stream = options.pop('stream', 'image_text')
    made.tasks[f'{objective}_{stream}'] = base.task_config(
        objective, stream, 4, **options)
  made.optimizer.warmup_steps = 1
  made.num_train_steps = made.checkpoint_every_steps = 2
  made.log_every_steps = 1
  made.eval_batches = 0
  made.mesh.data = 1
  for key, value in changes.items():
    made.update_from_flattened_dict({key.replace('__', '.'): value})
  return made


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory:
  return tempfile.TemporaryDirectory()


def _text(draw: random.Random) -> str:
  words = draw.choices(WORDS, k=draw.randint(1, 8))
  return ' '.join(words) + draw.choice(['', '.', '!)'])


def _picture(draw, number, languages, num_regions=4) -> dict:
  texts = [(language, _text(draw)) for language in languages
           for _ in range(1 + number % 3)]
  return _regions(number, num_regions) | {
      'image_id': f'picture {number}', 'group': f'group {number // 2}',
      'captions': caption_record(texts)}


def _regions(number, num_regions) -> dict:
  return {
      'height': 200, 'width': 100,
      'boxes': np.tile([[0, 0, 50, 100]], (num_regions, 1)).astype(np.float32),
      'features': np.full((num_regions, FEATURE_DIM), number, np.float16),
      'class_ids': np.arange(1, num_regions + 1, dtype=np.int32)}


def _labelled(draw, number) -> dict:
  row = _picture(draw, number, ('en', 'de'))
  return row | {'captions': [
      one | {'label': label_of(one['text'])} for one in row['captions']]}


def label_of(text: str) -> int:
  """Returns the class of a caption of `labelled`: which words it has."""
  return 0 if 'red' in text else 1 if 'big' in text else 2


def _sentence(draw, number) -> tuple[str, list[int]]:
  return LANGUAGES[number % 2], encode(_text(draw).replace(' ', ''))


def write(folder, features, splits, **manifest) -> None:
  """Writes TFDS records and a manifest."""

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the rows it is given."""
    # TFDS would look for its source in the package's resources.
    code_path = None
    VERSION = tfds.core.Version('1.0.0')
    name = folder.name

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      del dl_manager
      return {name: enumerate(rows) for name, rows in splits.items()}

    def _generate_examples(self):
      raise NotImplementedError

  folder.mkdir(parents=True)
  Builder(data_dir=folder).download_and_prepare()
  (folder / 'manifest.json').write_text(json.dumps(
      manifest | {'counts': {
          split: len(rows) for split, rows in splits.items()}}))
