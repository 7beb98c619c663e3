"""Damaged files of every reader: the project's own error, and no file left.

`make fuzz` tries 10,000 for each reader; M3P_JAX_FUZZ is how many.
"""

import collections
import importlib
import json
import os
import pathlib
import pickle

import hypothesis
from hypothesis import strategies
import pytest

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline.regions import isolated
from input_pipeline.regions import source
from tests import region_writers as writers

_EXAMPLES = int(os.environ.get('M3P_JAX_FUZZ', 50))
# The same in every run of the suite; new ones in every `make fuzz`.
_SETTINGS = hypothesis.settings(
    max_examples=_EXAMPLES, deadline=None, database=None,
    derandomize='M3P_JAX_FUZZ' not in os.environ, print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck))
_IMAGES = [writers.image('12', seed=1, num_classes=7),
           writers.image('7', seed=2, count=2, num_classes=7)]
_VARIANTS = collections.defaultdict(list)
for _variant in writers.VARIANTS:
  _VARIANTS[writers.format_of(_variant)].append(_variant)

# How a file is damaged: (what, where, how much), places as shares of the file,
# half of them near its beginning, where the headers are.
_PLACES = strategies.one_of(strategies.floats(0, 1), strategies.floats(0, .02))
_DAMAGE = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(
            ['flip', 'set', 'cut', 'drop', 'repeat', 'insert', 'huge']),
        _PLACES, strategies.binary(min_size=1, max_size=12)),
    min_size=1, max_size=4)


def _damaged(data: bytes, damage) -> bytes:
  for what, where, extra in damage:
    place = int(where * max(0, len(data) - 1))
    head, rest = data[:place], data[place:]
    if what == 'flip' and rest:
      rest = bytes([rest[0] ^ (1 << extra[0] % 8)]) + rest[1:]
    elif what == 'set':
      rest = extra + rest[len(extra):]
    elif what == 'cut':
      rest = b''
    elif what == 'drop':
      rest = rest[extra[0]:]
    elif what == 'repeat':
      rest = rest[:extra[0]] + rest
    elif what == 'insert':
      rest = extra + rest
    elif what == 'huge':  # A length, as most headers write them.
      rest = b'\xff\xff\xff\xff\xff\xff\xff\x7f'[:len(extra)] + rest[
          len(extra):]
    data = head + rest
  return data


def _tree(folder: pathlib.Path) -> dict[str, bytes]:
  # LMDB's lock file is not read.
  return {path.relative_to(folder).as_posix(): path.read_bytes()
          for path in folder.rglob('*')
          if path.is_file() and path.name != 'lock.mdb'}


def _check(original: dict[str, bytes], folder: pathlib.Path, which: int, damage,
           read) -> None:
  """Reads a damaged copy of some files, which must stay as they are."""
  name = sorted(original)[which % len(original)]
  files = original | {name: _damaged(original[name], damage)}
  for place, data in files.items():
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(data)
  try:
    read(folder)
  except errors.UserError as error:
    assert str(error)
  assert _tree(folder) == files
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize('name', source.names())
def test_regions(tmp_path, monkeypatch, name):
  monkeypatch.setattr(isolated, 'PATIENCE_SECONDS', 3)
  written = {}
  for variant in _VARIANTS[name]:
    folder = tmp_path / variant / 'a'
    folder.mkdir(parents=True)
    path = writers.VARIANTS[variant](folder, _IMAGES)
    assert len(writers.read(name, path)) == 2
    written[variant] = path, _tree(folder)

  @_SETTINGS
  @hypothesis.given(variant=strategies.sampled_from(_VARIANTS[name]),
                    which=strategies.integers(0, 99), damage=_DAMAGE)
  def run(variant, which, damage):
    path, original = written[variant]
    _check(original, tmp_path / variant / 'a', which, damage,
           lambda _: writers.read(name, path))

  run()


_FILES = {
    'coco': ['dataset_coco.json'],
    'stair': ['dataset_coco.json', 'stair_captions_v1.2_val.json'],
    'coco_cn': ['coco-cn_train.txt', 'coco-cn_val.txt', 'coco-cn_test.txt',
                'imageid.human-written-caption.txt'],
    'xflickrco': ['en/test.jsonl'], 'iglue_flickr30k': ['test_ann.jsonl'],
    'iglue_wit': ['test_en.jsonl'],
    'xtd10': ['test_image_names.txt', 'test_1kcaptions_en.txt'],
    'xm3600': ['captions.jsonl'],
    'm3p_coco': ['dataset_coco.json', 'coco.en.pkl'], 'sbu': ['sbu.csv']}


def _annotations() -> dict[str, bytes]:
  """Returns a little of what the datasets read."""
  images = [{'filepath': 'val2014', 'filename': f'{n}.jpg', 'cocoid': n,
             'split': split, 'sentences': [{'raw': 'a cat'}]}
            for n, split in enumerate(('train', 'val', 'test'))]
  row = {'sentences': ['a'], 'img_path': '0.jpg'}
  return {
      'dataset_coco.json': json.dumps({'images': images}).encode(),
      'stair_captions_v1.2_val.json': json.dumps({'annotations': [
          {'id': 1, 'image_id': 1, 'caption': '猫'}]}).encode(),
      'coco-cn_train.txt': b'0\n', 'coco-cn_val.txt': b'1\n',
      'coco-cn_test.txt': b'2\n',
      'imageid.human-written-caption.txt': '0#0\t猫\n'.encode(),
      'en/test.jsonl': json.dumps(row).encode(),
      'test_ann.jsonl': json.dumps(row).encode(),
      'test_en.jsonl': json.dumps({
          'wit_ix': 'wit_0', 'caption_reference_description': 'a'}).encode(),
      'test_image_names.txt': b'0.jpg\n', 'test_1kcaptions_en.txt': b'a cat\n',
      'captions.jsonl': json.dumps({
          'image/key': '0', 'en': {'caption': ['a', 'b']}}).encode(),
      'coco.en.pkl': pickle.dumps({'0.jpg': ['a', 'b']}),
      'sbu.csv': b'caption\turl\n"a ""b"""\thttp\n'}


@pytest.mark.parametrize('name', sorted(_FILES))
def test_captions(tmp_path, name):
  files = {place: data for place, data in _annotations().items()
           if place in _FILES[name]}
  module = importlib.import_module(f'input_pipeline.datasets.{name}')

  def read(folder):
    return list(module.Builder.list_items(
        builder.Options(raw_dir=str(folder))))

  _check(files, tmp_path / 'a', 0, [], read)
  assert read(tmp_path / 'a')

  @_SETTINGS
  @hypothesis.given(which=strategies.integers(0, 99), damage=_DAMAGE)
  def run(which, damage):
    _check(files, tmp_path / 'a', which, damage, read)

  run()
