"""Emoji with their names and keywords in CLDR's languages.

Pictures: Fluent 3D. Captions: the name, and the keywords as a list.
"""

import json
import pathlib

from configs import languages as language_table
from input_pipeline import builder
from input_pipeline import languages
from input_pipeline import sources
from input_pipeline.datasets import _readers

# CLDR leaves the variation selector out where file names may have it.
_SELECTOR = '\ufe0f'


def _annotations(locale: str) -> dict[str, dict[str, list[str]]]:
  # {emoji: {'tts': [name], 'default': keywords}}
  found = {}
  for package, inner in (
      ('cldr-annotations-full', 'annotations'),
      ('cldr-annotations-derived-full', 'annotationsDerived')):
    path = (sources.fetch(package) / 'package' / inner / locale
            / 'annotations.json')
    if path.exists():  # Not every locale has names of composed emoji.
      content = json.loads(path.read_text(encoding='utf-8'))
      found.update(content[inner]['annotations'])
  return found


def _emoji(path: pathlib.Path) -> str:
  return ''.join(chr(int(code, 16))
                 for code in path.stem.replace('_', '-').split('-'))


def _captions(entry: dict[str, list[str]]) -> list[str]:
  name = entry.get('tts', [''])[0]
  keywords = [word for word in entry.get('default', []) if word != name]
  return [text for text in (name, ', '.join(keywords)) if text]


class Builder(builder.ImageTextBuilder):
  """Base emoji, without skin tones; 5 % each for validation and test."""

  def items(self) -> list[builder.ImageItem]:
    pictures = {
        _emoji(path).replace(_SELECTOR, ''): path
        for path in sorted(sources.fetch('fluent-emoji-3d').rglob('*.webp'))
        if not any(f'1f3f{tone}' in path.stem for tone in 'bcdef')}
    # CLDR has a hundred more languages than the project evaluates.
    codes = languages.source_codes(
        'cldr', self.options.languages or language_table.EVALUATED)
    names = {code: _annotations(locale) for locale, code in codes.items()}
    english = names.get('en') or _annotations('en')
    items = []
    for emoji, path in pictures.items():
      captions = [
          (code, text) for code, annotations in names.items()
          for text in _captions(annotations.get(emoji, {}))]
      if emoji not in english or not captions:
        continue
      group = english[emoji]['tts'][0]
      items.append(builder.ImageItem(
          image_id=path.stem, path=path, split=_readers.split_by_hash(group),
          group=group, captions=captions))
    return items
