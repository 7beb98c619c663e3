"""Reads V. K. Mueller's English–Russian dictionary in dictd's format.

An entry is a headword and indented, wrapped text: senses `1) …`, alternatives
at commas, then phrases after a semicolon; labels such as `_мор.` stand before.
"""

from collections.abc import Iterator
import pathlib
import re

from input_pipeline.dictionary_files import freedict

PACKAGE = 'mueller7-dict'

_PRONUNCIATION = re.compile(r'\[[^\]]*\]')
_LABEL = re.compile(r'_[^\s,;)]+')
_BRACKETS = re.compile(r'\([^()]*\)')
_SENSE = re.compile(r'(?<!\S)(?:\d+[.)]|[IVX]+(?=\s)|[а-д]\))')
_LATIN = re.compile(r'[A-Za-z]')
_CYRILLIC = re.compile(r'[а-яёА-ЯЁ]')


def read(folder: pathlib.Path, name: str,
         ) -> Iterator[tuple[list[str], list[str]]]:
  """Yields ([English], [Russian, …]) of each entry.

  Args:
    folder: the unpacked package.
    name: the package.
  """
  stem = name.removesuffix('-dict')
  for entry in freedict.read_entries(folder, stem):
    head, _, body = entry.partition('\n')
    body = _PRONUNCIATION.sub(' ', ' '.join(body.split()))
    body = _LABEL.sub(' ', _BRACKETS.sub(' ', body))
    translations = []
    for sense in _SENSE.split(' ' + body):
      # Behind the first semicolon stand examples, and English begins them.
      for part in sense.split(';')[0].split(','):
        if _LATIN.search(part):
          break
        if _CYRILLIC.search(part):
          translations.append(part.strip(' .:'))
    yield [head.strip()], translations
