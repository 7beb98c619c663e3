"""Openclipart's drawings with the titles and keywords of their authors."""

import pathlib
import re
from xml.etree import ElementTree

from input_pipeline import builder
from input_pipeline import hashing
from input_pipeline import languages
from input_pipeline import sources

_DC = '{http://purl.org/dc/elements/1.1/}'
_RDF = '{http://www.w3.org/1999/02/22-rdf-syntax-ns#}'
# Hundreds of near-equal pictures whose captions say nothing of them.
_DROPPED = re.compile(
    r'/(icons?|icon_themes?|themes?|stars|flags?|logos|buttons|lizzard|'
    r'etiquette[^/]*|gnome[^/]*|tango[^/]*)/', re.IGNORECASE)
_NOISE = re.compile(
    r'\b(clip ?art|openclipart|svg|png|remix|unknown|untitled|image|icon)\b|'
    r'[_\d#*()\[\]{}<>|/\\]+', re.IGNORECASE)
_MAX_METADATA = 60_000


def clean(text: str) -> str:
  """Returns a title without file-name noise, '' where nothing is left."""
  words = _NOISE.sub(' ', text).split()
  cleaned = ' '.join(words).strip(' -.,:;')
  return cleaned if re.search(r'[A-Za-z]{3}', cleaned) else ''


def read_metadata(path: pathlib.Path) -> tuple[str, list[str], str]:
  """Returns (title, keywords, description) of a drawing; '' where missing."""
  head = path.read_bytes()[:_MAX_METADATA].decode('utf-8', 'replace')
  start, end = head.find('<metadata'), head.find('</metadata>')
  if start < 0 or end < 0:
    return '', [], ''
  block = head[start:end] + '</metadata>'
  # Prefixes are declared on the drawing's root, which is not parsed.
  opening = ('<metadata xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
             ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
             ' xmlns:cc="http://web.resource.org/cc/">')
  block = re.sub(r'<metadata[^>]*>', opening, block, count=1)
  try:
    root = ElementTree.fromstring(block)
  except ElementTree.ParseError:
    return '', [], ''
  title = root.find(f'.//{_DC}title')
  description = root.find(f'.//{_DC}description')
  bag = root.find(f'.//{_DC}subject')
  items = bag.iter(f'{_RDF}li') if bag is not None else ()
  keywords = [(item.text or '').strip().replace('_', ' ') for item in items]
  return ((title.text or '').strip() if title is not None else '',
          [word for word in keywords if re.fullmatch(r'[A-Za-z \-]{3,}', word)],
          (description.text or '').strip() if description is not None else '')


def captions_of(title: str, keywords: list[str],
                description: str) -> list[str]:
  """Returns the captions: title, keywords as a list, short description."""
  texts = [clean(title), ', '.join(dict.fromkeys(keywords[:8]))]
  if 3 <= len(description.split()) <= 20 and description.isascii():
    texts.append(' '.join(description.split()))
  return [text for text in dict.fromkeys(texts) if text]


class Builder(builder.ImageTextBuilder):
  """Drawings grouped by title; 5 % each for validation and test."""

  def items(self) -> list[builder.ImageItem]:
    if 'en' not in (self.options.languages or ('en',)):
      languages.check(self.options.languages)
      return []
    pictures = next(iter(sorted(
        sources.fetch('openclipart-png').rglob('openclipart/png'))))
    drawings = next(iter(sorted(
        sources.fetch('openclipart-svg').rglob('openclipart/svg'))))
    items = []
    for path in sorted(pictures.rglob('*.png')):
      name = path.relative_to(pictures).with_suffix('')
      drawing = drawings / name.with_suffix('.svg')
      if _DROPPED.search(f'/{name.as_posix()}') or not drawing.exists():
        continue
      metadata = read_metadata(drawing)
      title = clean(metadata[0])
      if not title:
        continue
      group = title.casefold()
      items.append(builder.ImageItem(
          image_id=name.as_posix(), path=path, split=hashing.split(group),
          group=group,
          captions=[('en', text) for text in captions_of(*metadata)]))
    return items
