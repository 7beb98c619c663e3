"""Wikipedia, as TFDS has prepared it or as WikiExtractor has unpacked it.

`--raw_dir` is TFDS's data_dir (`wikipedia/20230601.de/1.0.0/`), or holds a
folder or a file of WikiExtractor's JSON lines for each edition
(`de/AA/wiki_00`, `dewiki-20240101/…`, `de.jsonl`). The paper's editions are
`EDITIONS` of configs/languages.py; others are read where they have a row there,
and named in the manifest where they have none.
"""

from collections.abc import Iterator
import pathlib
import re

from input_pipeline import languages
from input_pipeline.datasets import _archives
from input_pipeline.datasets import text

# Of TFDS's config, of WikiExtractor's folder or file.
_EDITION = re.compile(
    r'(?:\d{8}\.)?(?P<code>[\w-]+?)(?:wiki)?(?:-(?:\d{8}|latest).*)?')


class Builder(text.Builder):
  """Sentences of the articles."""

  def sources(self, folder: pathlib.Path) -> Iterator[text.Source]:
    made = (_archives.tfds_builders(folder / 'wikipedia', 'wikipedia')
            or _archives.tfds_builders(folder, 'wikipedia'))
    for one in made:
      config = one.info.config_name or ''
      yield config, config, _articles(one)
    if not made:
      yield from super().sources(folder)

  def language(self, theirs: str, place: str) -> str:
    del place
    match = _EDITION.fullmatch(theirs)
    edition = (match['code'] if match else theirs).replace('-', '_')
    code = languages.edition(edition)
    if not code:
      left_out = [*self.notes.get('editions_left_out', ()), edition]
      self.note('editions_left_out', sorted(set(left_out)))
    return code


def _articles(made) -> Iterator[tuple[str, str]]:
  """Yields (number, text) of the articles of TFDS's set, split by split."""
  number = 0
  for info in made.info.splits.values():
    for path in info.filepaths:
      for features, _, _ in _archives.examples(path):
        for article in _archives.texts(features, 'text'):
          yield str(number), article
          number += 1
