"""The Universal Declaration of Human Rights: one text in many languages.

Split by article, so that no sentence's translation is in another split.
"""

from html import parser
import re

from input_pipeline import builder
from input_pipeline import languages
from input_pipeline import sources

# Articles 27 and 28 validate, 29 and 30 test.
_VALIDATION, _TEST = (27, 28), (29, 30)
_MAX_CHARACTERS = 140
_SENTENCE = re.compile(r'.+?(?:[.;:!?。；።।]\s*|$)')


class _Paragraphs(parser.HTMLParser):
  """Collects (article number, text) of the paragraphs of a declaration."""

  def __init__(self):
    super().__init__()
    self.paragraphs: list[tuple[int, str]] = []
    self._article = 0
    self._open: str | None = None
    self._text: list[str] = []

  def handle_starttag(self, tag, attrs):
    if tag == 'article':
      number = dict(attrs).get('data-number') or ''
      self._article = int(number) if number.isdigit() else 0
    elif tag in ('p', 'li'):
      self._finish()
      self._open = tag

  def handle_endtag(self, tag):
    if tag == self._open:
      self._finish()

  def handle_data(self, data):
    if self._open:
      self._text.append(data)

  def _finish(self):
    text = ' '.join(''.join(self._text).split())
    if text and self._open:
      self.paragraphs.append((self._article, text))
    self._open, self._text = None, []


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
      reader = _Paragraphs()
      reader.feed(path.read_text(encoding='utf-8'))
      reader.close()
      for i, (article, text) in enumerate(reader.paragraphs):
        for j, sentence in enumerate(sentences(text)):
          items.append(builder.TextItem(
              text_id=f'{code}/{i}/{j}', language=code, text=sentence,
              split='test' if article in _TEST else
              'validation' if article in _VALIDATION else 'train'))
    return items
