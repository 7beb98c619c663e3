"""Captioned pictures as img2dataset has fetched them: tars, TFRecords, folders.

`--raw_dir` is its `--output_folder`; shards in a folder `validation/` or
`test/` (or `val/`, `dev/`) of it are of that split. A picture's id is its key,
which is the number of its row where shards have 10,000 of them. Links that
gave no picture are counted in the manifest.
"""

from collections.abc import Iterator

from input_pipeline import errors
from input_pipeline.datasets import _archives
from input_pipeline.datasets import _readers


class Builder(_readers.Builder):
  """Pictures with one English caption each, read shard by shard."""

  def items(self) -> Iterator[_readers.Item]:
    shards = _archives.shards(self.folder)
    if not shards:
      raise errors.UserError(
          f'{self.folder} has no shards of img2dataset: 00000.tar, '
          '00000.tfrecord, or 00000/ beside 00000_stats.json')
    self.note('dead_links', _archives.failures(self.folder))
    by_split: dict[str, list] = {}
    for shard in shards:
      first = shard.relative_to(self.folder).parts[0]
      by_split.setdefault(_readers.SPLITS.get(first, 'train'), []).append(shard)
    language = self.options.languages[0] if self.options.languages else 'en'
    return _readers.spread([
        self._split(split, found, language)
        for split, found in by_split.items()], self.options.limit)

  def _split(self, split: str, shards, language: str,
             ) -> Iterator[_readers.Item]:
    for shard in shards:
      for sample in _archives.samples(shard):
        name = sample.key if split == 'train' else f'{split}_{sample.key}'
        yield _readers.Item(
            name, sample.path, split, name,
            [(language, sample.caption)] if sample.caption.strip() else [],
            sample.span)
