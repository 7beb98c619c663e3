"""The page and its pieces as HTML; safe for any text.

Letters: W words, R regions.
"""

from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple
import urllib.parse

import jinja2
import numpy as np

from input_pipeline import languages as languages_lib
from m3p_jax.search import rankings
from m3p_jax.search import searcher as searcher_lib

# Words of a query that are drawn.
_MAX_WORDS = 24
# A region over this part of the picture is the whole of it, no place in it.
_WHOLE = 0.95


class Detail(NamedTuple):
  """A picture in the panel."""
  address: str  # '' = the one that the visitor's browser has.
  caption: str  # '' where it has none.
  name: str  # Of its file, without folders.
  key: str  # In the index; '' where it has none.
  path: str  # Of its file; '' where that is not there.
  date: str
  alike: Sequence[tuple[str, str]]  # Keys and addresses of near duplicates.
  query: str  # Last searched for.
  explanation: searcher_lib.Explanation | None = None
  # Language → captions that fit.
  captions: dict[str, Sequence[searcher_lib.Description]] = {}
  written: dict[str, str] = {}  # By the weights, in each language.


def page(examples: Sequence[tuple[str, str]], *, results: str,
         **variables: Any) -> str:
  """Returns the whole page; `variables` are what page.html.j2 names.

  Examples are (language, query) pairs to try; without results they are shown.
  """
  return _ENVIRONMENT.get_template('page.html.j2').render(
      examples=examples, results=results or notice(
          'Search with your own words', 'The collection is found by what a '
          'picture shows, in whatever language you type.', examples),
      **variables)


def notice(title: str, message: str,
           examples: Sequence[tuple[str, str]]) -> str:
  """Returns a friendly message with queries to try."""
  return _PARTS.notice(title, message, examples)


def results(cards: Sequence[Any], asked: Any, wanted: Any, *,
            guess: str, name: str, seen: int, wanted_by_joint: int,
            has_more: bool) -> str:
  """Returns a grid of `finder.Card`s under a line that says what it is.

  What is asked for is a query, whose language in words is `guess`, the picture
  called `name`, or nothing: then it was the visitor's own. The joint encoder
  has seen so many pictures of those wanted by it.
  """
  more = has_more and urllib.parse.urlencode({
      key: value for key, value in (asked._asdict() | wanted._asdict() | {
          'offset': wanted.offset + wanted.k}).items()
      if value and key not in ('k', 'is_folded')})
  return _PARTS.results(cards, asked, wanted, guess, name, seen,
                        wanted_by_joint, more)


def detail(one: Detail, *, busy: str = '') -> str:
  """Returns the panel of one picture; `busy` is what is being worked on."""
  words, boxes, left_out = [], [], 0
  if one.explanation:
    boxes = list(map(_rectangle, one.explanation.boxes_R4))
    left_out = max(0, len(one.explanation.words) - _MAX_WORDS)
    words = [(word, *attention(weights_R, one.explanation.boxes_R4))
             for word, weights_R in zip(
                 one.explanation.words[:_MAX_WORDS],
                 one.explanation.weights_WR, strict=False)]
  return _PARTS.detail(one, boxes, words, left_out, busy)


def attention(weights_R: np.ndarray, boxes_R4: np.ndarray
              ) -> tuple[str, list[dict[str, str]]]:
  """Returns where a word looks, in words and as SVG's attributes.

  Its weights sum to 1; boxes are in parts of the sides.
  """
  size_R = np.prod(boxes_R4[:, 2:] - boxes_R4[:, :2], axis=1)
  place_R = (size_R > 0) & (size_R < _WHOLE)
  if not place_R.any():
    return 'the whole picture', []
  low, high = weights_R[place_R].min(), weights_R[place_R].max()
  best = int(np.argmax(np.where(place_R, weights_R, -1)))
  said = f'{where(boxes_R4[best])}, {weights_R[best]:.0%} of its attention'
  return said, [
      _rectangle(box) | {
          'fill-opacity': f'{(weight - low) / max(high - low, 1e-9):.2f}'}
      for weight, box in zip(weights_R[place_R], boxes_R4[place_R],
                             strict=True)]


def where(box: np.ndarray) -> str:
  """Returns where a box lies, in words.

  >>> where(np.array([0.0, 0.6, 0.3, 1.0]))
  'the bottom left'
  """
  x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
  row = ('top', 'middle', 'bottom')[min(int(y * 3), 2)]
  column = ('left', 'centre', 'right')[min(int(x * 3), 2)]
  return 'the ' + {'middle centre': 'centre'}.get(
      f'{row} {column}', f'{row} {column}')


def percent(value: float) -> str:
  """Returns a probability, never 0 or 100 where it is not.

  >>> percent(0.5), percent(0.9996), percent(0.0001)
  ('50 %', '>99 %', '<1 %')
  """
  if value > 0.99:
    return '>99 %'
  return '<1 %' if value < 0.01 else f'{100 * value:.0f} %'


def _rectangle(box: np.ndarray) -> dict[str, str]:
  """Returns a box in per cent of the sides."""
  x1, y1, x2, y2 = (100 * float(value) for value in box)
  return {'x': f'{x1:.1f}', 'y': f'{y1:.1f}', 'width': f'{x2 - x1:.1f}',
          'height': f'{y2 - y1:.1f}'}


def _short(query: str) -> str:
  return query if len(query) <= 80 else query[:79] + '…'


_ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent))
_ENVIRONMENT.globals.update(best=rankings.BEST, orders=rankings.ORDERS)
_ENVIRONMENT.filters.update(
    language=languages_lib.name, percent=percent, short=_short)
_PARTS: Any = _ENVIRONMENT.get_template('parts.html.j2').module
