"""Pictures inside of other files: what img2dataset and TFDS have written.

A picture in a tar or in a TFRecord stands there as it is, from one byte to
another: nothing is unpacked.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
import itertools
import os
import pathlib
import tarfile
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import errors
from input_pipeline import text_files

# A TFRecord: length (8 bytes), its checksum (4), content, checksum (4).
_HEADER_BYTES, _FRAME_BYTES = 12, 16
_ENDINGS = {'jpg', 'jpeg', 'png', 'webp'}
Feature = Mapping[str, Any]
# (key, file, `builder.ImageItem.span`, caption).
Sample = tuple[str, pathlib.Path, tuple[int, int] | None, str]


def examples(path: pathlib.Path) -> Iterator[tuple[Feature, int, bytes]]:
  """Yields (features, first byte, content) of a file's `tf.train.Example`s.

  Raises:
    UserError: the file is cut off, or holds something else.
  """
  offset = 0
  try:
    for content in tf.data.TFRecordDataset(
        os.fspath(path)).as_numpy_iterator():
      yield (tf.train.Example.FromString(content).features.feature,
             offset + _HEADER_BYTES, content)
      offset += _FRAME_BYTES + len(content)
  except Exception as error:  # TensorFlow's, and several of protobuf's.
    raise errors.UserError(
        f'{path}: cut off, or no TFRecord of tf.train.Example, at byte '
        f'{offset}') from error


def texts(features: Feature, name: str) -> list[str]:
  """Returns the strings of a feature, none where it is absent."""
  # Lists of lists are stored flat.
  found = features.get(name) or features.get(f'{name}/ragged_flat_values')
  return list(map(_decode, found.bytes_list.value)) if found else []


def span_of(value: bytes, offset: int, content: bytes) -> tuple[int, int]:
  """Returns where in the file a feature's bytes lie."""
  return offset + content.index(value), len(value)


def tfds_builders(folder: pathlib.Path, name: str,
                  ) -> list[tfds.core.DatasetBuilder]:
  """Returns TFDS's prepared sets of a name at, or up to three folders below.

  Of several versions of one config, the newest.

  Raises:
    UserError: one is not in TFRecord files.
  """
  newest: dict[str, pathlib.Path] = {}
  for depth in range(4):
    for path in sorted(folder.glob('*/' * depth + 'dataset_info.json')):
      info = text_files.read_json(path)
      if info.get('name') == name:
        newest[info.get('configName', '')] = path
        if info.get('fileFormat', 'tfrecord') != 'tfrecord':
          raise errors.UserError(f'{path}: fileFormat is '
                                 f'{info["fileFormat"]!r}; allowed: tfrecord')
  return [tfds.builder_from_directory(path.parent) for path in newest.values()]


def shards(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns img2dataset's shards at and below a folder: tars, TFRecord files,
  and folders of files.

  Raises:
    UserError: there are shards, but in Parquet alone.
  """
  found = {path for ending in ('tar', 'tfrecord')
           for path in folder.rglob(f'*.{ending}')}
  stems = [path.with_name(path.name.removesuffix('_stats.json'))
           for path in folder.rglob('*_stats.json')]
  found |= {stem for stem in stems if stem.is_dir()}
  if stems and not found:
    raise errors.UserError(
        f'{folder}: its shards are Parquet; allowed: --output_format=files, '
        'webdataset or tfrecord of img2dataset')
  return sorted(found)


def failures(folder: pathlib.Path) -> dict[str, int]:
  """Returns how many links gave no picture, by what img2dataset says of it."""
  counts: Counter[str] = Counter()
  for path in folder.rglob('*_stats.json'):
    counts.update(text_files.read_json(path).get('status_dict') or {})
  counts.pop('success', None)
  return dict(counts.most_common())


def samples(shard: pathlib.Path) -> Iterator[Sample]:
  """Yields the pictures of one of `shards`, in its order."""
  if shard.is_dir():
    for path in sorted(shard.iterdir()):
      if path.suffix[1:] in _ENDINGS:
        text = path.with_suffix('.txt')
        yield path.stem, path, None, _decode(
            text.read_bytes() if text.exists() else b'')
  elif shard.suffix == '.tar':
    yield from _tar(shard)
  else:
    for features, offset, content in examples(shard):
      for name in features.keys() & _ENDINGS:
        (value,) = features[name].bytes_list.value
        yield (texts(features, 'key')[0], shard,
               span_of(value, offset, content), ''.join(texts(features, 'txt')))


def _tar(shard: pathlib.Path) -> Iterator[Sample]:
  """Yields the samples of a WebDataset: files of one name but for the ending.
  """
  try:
    with tarfile.open(shard, 'r:') as archive:
      for key, members in itertools.groupby(archive, lambda member: (
          member.name.rpartition('/')[2].partition('.')[0])):
        picture, caption = None, b''
        for member in members:
          ending = member.name.rpartition('.')[2].lower()
          if ending in _ENDINGS:
            picture = member.offset_data, member.size
          elif ending == 'txt' and (file := archive.extractfile(member)):
            caption = file.read()
        if picture:
          yield key, shard, picture, _decode(caption)
  except (tarfile.TarError, OSError) as error:
    raise errors.UserError(f'{shard}: damaged: {error}') from error


def _decode(text: bytes) -> str:
  return text.decode('utf-8', 'surrogateescape')
