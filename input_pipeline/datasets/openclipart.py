"""Openclipart's drawings with the titles and keywords of their authors.

Grouped by title; 5 % of the groups each for validation and test.
"""

from collections import Counter
import html
import pathlib
import re
from typing import NamedTuple
from xml.etree import ElementTree

from input_pipeline import builder
from input_pipeline import sources
from input_pipeline.datasets import _readers

_DC = '{http://purl.org/dc/elements/1.1/}'
_RDF = '{http://www.w3.org/1999/02/22-rdf-syntax-ns#}'
# Prefixes are declared on the drawing's root, which is not parsed.
_OPENING = ('<metadata xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
            ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
            ' xmlns:cc="http://web.resource.org/cc/">')
_MAX_METADATA_BYTES = 60_000
# Series of near-equal pictures whose captions say nothing of them.
_DROPPED = re.compile(
    r'/(icons?|icon_themes?|themes?|stars|flags?|logos|buttons|lizzard|cards|'
    r'led|flowchart|etiquette[^/]*|gnome[^/]*|tango[^/]*)/', re.IGNORECASE)
_NOISE = re.compile(
    r'^(clip ?art )?by\s+\w+\s+\w+\b|\b(clip ?art|openclipart|svg|png|remix|'
    r'unknown|untitled|image|icon|iconset|aiga|rpg map elements?|body part|'
    r'b (and|&) w|bw|black and white|r sibmission)\b|[_\d#*()\[\]{}<>|/\\]+',
    re.IGNORECASE)
_CAMEL_CASE = re.compile(r'(?<=[a-z])(?=[A-Z])')
_KEYWORD = re.compile(r'[A-Za-z \-]{3,40}')
_NO_KEYWORDS = {'unsorted', 'hash', 'clip art', 'clipart', 'shape', 'mapsym',
                'externalsource', 'architetto francesco rollandin'}
_NO_DESCRIPTION = re.compile(
    r'http|www|@|clip ?art|svg|inkscape|convert|draw[ns]? by|creat|vector',
    re.IGNORECASE)
# A title that more pictures share is a collection's; the file name says more.
_MAX_SHARED = 9
# A prolific author who wrote his titles in Italian.
_ITALIAN = re.compile(r'_arch|rollandin')


class Metadata(NamedTuple):
  """What an author wrote of a drawing; empty where missing."""
  title: str = ''
  keywords: tuple[str, ...] = ()
  description: str = ''


def clean(text: str) -> str:
  """Returns a title without file-name noise, '' where nothing is left."""
  text = _CAMEL_CASE.sub(' ', html.unescape(text))
  words = _NOISE.sub(' ', re.sub(r'[_\-–]+', ' ', text)).split()
  cleaned = ' '.join(words).strip(' -.,:;&')
  return cleaned if re.search(r'[A-Za-z]{3}', cleaned) else ''


def read_metadata(path: pathlib.Path) -> Metadata:
  """Returns the metadata in an SVG file."""
  with open(path, 'rb') as file:
    head = file.read(_MAX_METADATA_BYTES).decode('utf-8', 'replace')
  block = re.search(r'<metadata[^>]*>(.*?)</metadata>', head, re.DOTALL)
  if not block:
    return Metadata()
  try:
    root = ElementTree.fromstring(f'{_OPENING}{block[1]}</metadata>')
  except ElementTree.ParseError:
    return Metadata()
  bag = root.find(f'.//{_DC}subject')
  items = bag.iter(f'{_RDF}li') if bag is not None else ()
  keywords = [(item.text or '').strip().replace('_', ' ') for item in items]
  return Metadata(
      title=(root.findtext(f'.//{_DC}title') or '').strip(),
      keywords=tuple(word for word in dict.fromkeys(keywords)
                     if _KEYWORD.fullmatch(word)
                     and word.casefold() not in _NO_KEYWORDS),
      description=' '.join(
          (root.findtext(f'.//{_DC}description') or '').split()))


def captions_of(title: str, metadata: Metadata) -> list[str]:
  """Returns the captions: title, keywords as a list, short description."""
  texts = [title, ', '.join(metadata.keywords[:8])]
  description = html.unescape(metadata.description)
  if (3 <= len(description.split()) <= 20 and description.isascii()
      and not _NO_DESCRIPTION.search(description)):
    texts.append(description)
  distinct = {text.casefold().strip('.'): text for text in reversed(texts)}
  return [text for text in reversed(distinct.values()) if text]


def choose_title(name: str, title: str, shared: int) -> str:
  """Returns what the drawing shows, '' where nobody says so in English.

  Args:
    name: of the file, below the collection's folder, without ending.
    shared: how many drawings have the title.
  """
  if _ITALIAN.search(name):
    return ''
  stem = clean(name.split('/')[-1])
  if shared <= _MAX_SHARED or title.casefold() in stem.casefold():
    return title
  return '' if name.startswith('unsorted/') else stem


class Builder(builder.ImageTextBuilder):
  """Drawings with captions in English."""

  def items(self) -> list[builder.ImageItem]:
    if 'en' not in (self.options.languages or ('en',)):
      return []
    (pictures,) = sources.fetch('openclipart-png').rglob('openclipart/png')
    (drawings,) = sources.fetch('openclipart-svg').rglob('openclipart/svg')
    found = {}
    for path in sorted(pictures.rglob('*.png')):
      name = path.relative_to(pictures).with_suffix('').as_posix()
      drawing = drawings / f'{name}.svg'
      if not _DROPPED.search(f'/{name}') and drawing.exists():
        found[name] = (path, read_metadata(drawing))
    shared = Counter(clean(data.title) for _, data in found.values())
    items = []
    for name, (path, data) in found.items():
      title = clean(data.title)
      chosen = choose_title(name, title, shared[title])
      captions = captions_of(chosen, data)
      if captions:
        group = (chosen or captions[0]).casefold()
        items.append(builder.ImageItem(
            image_id=name, path=path, split=_readers.split_by_hash(group),
            group=group, captions=[('en', text) for text in captions]))
    return items
