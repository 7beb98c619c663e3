"""A set of pictures and captions that TFDS has prepared: `tfds:coco_captions`.

`--raw_dir` is TFDS's data_dir, or a folder of the set in it. Which features
are the picture, its id and its captions follows from their types and names,
and is said; `--fields=image=NAME,id=NAME,en=NAME,de=NAME` says it instead. In a
list of objects it is `captions/text`. The order is that of the files, not that
of a published list.
"""

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import errors
from input_pipeline import languages
from input_pipeline.datasets import _archives
from input_pipeline.datasets import _readers

# What features are called that hold an id, or captions, the likeliest first.
_IDS = ('filename', 'file_name', 'image_id', 'id', 'key')
_CAPTIONS = ('caption', 'text', 'sentence', 'description', 'title')


class Builder(_readers.Builder):
  """The pictures of TFDS's records, which are read where they lie."""

  def items(self) -> Iterator[_readers.Item]:
    name = self.options.source
    found = (_archives.tfds_builders(self.folder / name, name)
             or _archives.tfds_builders(self.folder, name))
    if len(found) != 1:
      raise errors.UserError(
          f'{self.folder} has {len(found) or "no"} prepared sets called '
          f'{name!r}; allowed: TFDS\'s data_dir or a folder in it, with one')
    info = found[0].info
    leaves = dict(_leaves(info.features))
    fields = self._fields(leaves) if self.options.fields else _guess(leaves)
    self.note('fields', fields)
    if not {'image'} < set(fields) - {'id'}:
      raise errors.UserError(
          f'{found[0].data_dir}: --fields must name the image and captions, as '
          f'image=NAME,en=NAME; there are: {", ".join(leaves)}')
    self.note('splits_left_out', sorted(set(info.splits) - set(
        _readers.SPLITS)))
    return _readers.spread([
        self._split(info.splits[theirs], ours, fields)
        for theirs, ours in _readers.SPLITS.items() if theirs in info.splits],
                           self.options.limit)

  def _fields(self, leaves: Mapping[str, Any]) -> dict[str, str]:
    """Returns what --fields says, in public codes."""
    fields = dict(field.partition('=')[::2] for field in self.options.fields)
    for ours, theirs in fields.items():
      if ours not in ('image', 'id'):
        languages.get(ours)
      errors.check_choice(f'--fields={ours}=', theirs, [
          name for name, (feature, _) in leaves.items() if ours == 'id'
          or isinstance(feature, tfds.features.Image) == (ours == 'image')])
    return fields

  def _split(self, info: tfds.core.SplitInfo, split: str,
             fields: Mapping[str, str]) -> Iterator[_readers.Item]:
    wanted, number = self.options.languages, 0
    for path in info.filepaths:
      for features, offset, content in _archives.examples(path):
        (image,) = features[fields['image']].bytes_list.value
        name = f'{info.name}_{number:08d}'
        if 'id' in fields:
          value = features[fields['id']]
          name = str((value.int64_list.value or _archives.texts(
              features, fields['id']))[0])
        number += 1
        yield _readers.Item(
            name, pathlib.Path(path), split, name,
            [(code, text) for code, theirs in fields.items()
             if code not in ('image', 'id') and (not wanted or code in wanted)
             for text in _archives.texts(features, theirs)],
            _archives.span_of(image, offset, content))


def _leaves(feature: Any, place: str = '', *, is_list: bool = False,
            ) -> Iterator[tuple[str, tuple[Any, bool]]]:
  """Yields (name, (feature, whether many)) of what is no dict or list."""
  if isinstance(feature, tfds.features.Sequence):
    yield from _leaves(feature.feature, place, is_list=True)
  elif isinstance(feature, tfds.features.FeaturesDict):
    for name, inner in feature.items():
      yield from _leaves(inner, f'{place}/{name}' if place else name,
                         is_list=is_list)
  else:
    yield place, (feature, is_list)


def _guess(leaves: Mapping[str, tuple[Any, bool]]) -> dict[str, str]:
  """Returns the fields that types and names suggest."""
  fields = {}
  for ours, found in (
      ('image', [name for name, (feature, _) in leaves.items()
                 if isinstance(feature, tfds.features.Image)]),
      ('id', [name for known in _IDS for name, (_, is_list) in leaves.items()
              if name.rpartition('/')[2] == known and not is_list]),
      ('en', [name for known in _CAPTIONS
              for name, (feature, _) in leaves.items()
              if feature.tf_dtype == tf.string and known in name])):
    if found:
      fields[ours] = found[0]
  return fields
