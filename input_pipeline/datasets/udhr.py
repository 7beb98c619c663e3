"""The Universal Declaration of Human Rights: one text in many languages.

Split by article, so that no sentence's translation is in another split.
"""

from collections.abc import Iterator
import html
import re

from input_pipeline import builder
from input_pipeline import languages
from input_pipeline import sources

# Articles 27 and 28 validate, 29 and 30 test.
_VALIDATION, _TEST = (27, 28), (29, 30)
_MAX_CHARACTERS = 140
# An article begins, or a paragraph, which goes on to the next tag of a block.
_PARAGRAPH = re.compile(
    r'<article\b(?:[^>]*data-number="(?P<article>\d+)")?[^>]*>|<(?:p|li)\b[^>]*>'
    r'(?P<text>[^<]*(?:<(?!/?(?:p|li|article)\b)[^<]*)*)')
_SENTENCE = re.compile(r'.+?(?:[.;:!?。；።।]\s*|$)')


def _paragraphs(page: str) -> Iterator[tuple[int, str]]:
  """Yields (article, 0 = the preamble; text) of a declaration's paragraphs."""
  article = 0
  for match in _PARAGRAPH.finditer(page):
    if match['text'] is None:
      article = int(match['article'] or 0)
    elif text := ' '.join(html.unescape(
        re.sub(r'<[^>]*>', '', match['text'])).split()):
      yield article, text


def sentences(text: str) -> list[str]:
  """Returns the text in pieces of about 140 characters, cut at sentence ends.
  """
  pieces = ['']
  for sentence in _SENTENCE.findall(text):
    if pieces[-1] and len(pieces[-1]) + len(sentence) > _MAX_CHARACTERS:
      pieces.append('')
    pieces[-1] += sentence
  return [piece.strip() for piece in pieces if piece.strip()]


class Builder(builder.TextBuilder):
  """Sentences of the declaration, an article in one split only."""

  def items(self) -> list[builder.TextItem]:
    folder = sources.fetch('udhr')
    codes = languages.source_codes('udhr', self.options.languages)
    items = []
    for theirs, code in codes.items():
      path = next(iter(sorted(folder.rglob(f'declaration/{theirs}.html'))))
      for i, (article, text) in enumerate(
          _paragraphs(path.read_text(encoding='utf-8'))):
        for j, sentence in enumerate(sentences(text)):
          items.append(builder.TextItem(
              text_id=f'{code}/{i}/{j}', language=code, text=sentence,
              split='test' if article in _TEST else
              'validation' if article in _VALIDATION else 'train'))
    return items
