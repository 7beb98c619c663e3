"""Pieces of the page as HTML; pure, and safe for any text.

Letters: W words, R regions.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from input_pipeline import languages as languages_lib
from m3p_jax import batch as batch_lib
from m3p_jax.searching import embedder
from m3p_jax.searching import searcher as searcher_lib
from m3p_jax.serve import heat
from m3p_jax.serve import markup

# Words of a query that are drawn.
_MAX_WORDS = 24


class Detail(NamedTuple):
  """A picture in the panel.

  Attributes:
    address: of the picture; '' = the one that the visitor's browser has.
    title: a caption, or the picture's name.
    name: in the collection; '' where it has none.
    regions: of the picture.
    query: last searched for.
    explanation: of the query.
    captions: language → captions that fit.
  """
  address: str
  title: str
  name: str
  regions: batch_lib.Regions
  query: str
  explanation: embedder.Explanation | None = None
  captions: Mapping[str, Sequence[searcher_lib.Description]] = {}


def header(dataset: str, count: int, languages: Sequence[str],
           model: str) -> str:
  """Returns the head of the page: what is searched, and by what."""
  # `captions` is what anybody's own pictures are prepared as.
  name = 'pictures' if dataset == 'captions' else dataset.replace('_', ' ')
  names = ', '.join(map(languages_lib.name, languages))
  return (
      '<header class="m3p-header"><div><p class="m3p-kicker">M3P · search '
      'pictures in your language</p>'
      f'<h1>{markup.text(name[:1].upper() + name[1:])}</h1></div>'
      '<ul class="m3p-facts">'
      f'<li>{_counted(count, "picture")}</li>'
      f'<li title="{markup.text(names)}">'
      f'{_counted(len(languages), "language")}</li>'
      f'<li>model <strong>{markup.text(model)}</strong></li></ul>'
      '</header>')


def _counted(count: int, noun: str) -> str:
  return f'<strong>{count:,}</strong> {noun}{"" if count == 1 else "s"}'


def welcome(examples: Sequence[tuple[str, str]]) -> str:
  """Returns what stands where results will be."""
  return notice('Search with your own words', 'The collection is found by '
                'what a picture shows, in whatever language you type.',
                examples)


def notice(title: str, message: str,
           examples: Sequence[tuple[str, str]]) -> str:
  """Returns a friendly message with queries to try."""
  chips = ''.join(
      f'<li><button type="button" class="m3p-chip" dir="auto" '
      f'{markup.language_attributes(language)} '
      f'data-query="{markup.text(query)}">{markup.text(query)}</button></li>'
      for language, query in examples)
  return (
      '<section class="m3p-notice" aria-live="polite">'
      f'<h2>{markup.text(title)}</h2><p>{markup.text(message)}</p>'
      + (f'<ul class="m3p-chips" aria-label="Examples">{chips}</ul>'
         if chips else '') + '</section>')


def results(found: Sequence[searcher_lib.Result],
            addresses: Mapping[int, str], *,
            query: str, guess: str, mode: str, seen: int, wanted: int) -> str:
  """Returns a grid of pictures under a line that says what it is.

  Args:
    found: best first.
    addresses: of the small copies, by the pictures' numbers in the index.
    query: searched for; '' = the visitor's picture.
    guess: its language in words.
    mode: of scoring.
    seen: pictures that the joint encoder has looked at.
    wanted: pictures that it will look at.
  """
  what = (f'<h2>Results for <q dir="auto">{markup.text(_short(query))}</q></h2>'
          if query else '<h2>Pictures like yours</h2>')
  cards = ''.join(
      _card(one, number, address, rank, mode, decided=rank <= seen)
      for rank, (one, (number, address)) in enumerate(
          zip(found, addresses.items(), strict=True), 1))
  return (
      f'<section aria-label="Results"><div class="m3p-line">{what}'
      + (f'<span class="m3p-tag">{markup.text(guess)}</span>' if guess else '')
      + f'<span class="m3p-status" role="status">'
      f'{_status(mode, seen, wanted)}</span></div>'
      f'<ol class="m3p-grid">{cards}</ol></section>')


def _status(mode: str, seen: int, wanted: int) -> str:
  if mode == 'dual':
    return 'ordered by the dual encoder'
  if seen < wanted:
    return (f'<progress max="{wanted}" value="{seen}" aria-label="Joint '
            f'encoder"></progress> the joint encoder reads {seen:,} of '
            f'{wanted:,}…')
  return (f'first {wanted:,} ordered again by the joint encoder'
          if mode == 'rerank' else 'all ordered by the joint encoder')


def _card(one: searcher_lib.Result, number: int, address: str, rank: int,
          mode: str, *, decided: bool) -> str:
  title = one.caption or one.image_id
  score = f'<span title="cosine of query and picture">{one.cosine:.2f}</span>'
  if mode != 'dual' and one.match is not None:
    score = (f'<span title="match probability of the joint encoder">'
             f'{markup.percent(one.match)}</span>' + score)
  picture = (
      f'<img src="{address}" alt="" loading="lazy" decoding="async">'
      if one.thumbnail else
      '<span class="m3p-blank" aria-hidden="true">▢</span>')
  return (
      f'<li><button type="button" class="m3p-card'
      f'{" m3p-decided" if decided else ""}" data-number="{number}" '
      f'data-id="{markup.text(one.image_id)}">'
      f'<span class="m3p-frame">{picture}<span class="m3p-rank">{rank}</span>'
      f'</span><span class="m3p-name" dir="auto">{markup.text(title)}</span>'
      f'<span class="m3p-score">{score}</span></button></li>')


def detail(one: Detail, *, busy: str = '') -> str:
  """Returns the panel of one picture.

  Args:
    one: the picture and what is known of it.
    busy: what is being worked on.
  """
  picture = heat.stack(one.address, one.title, heat.outlines(one.regions))
  parts = [
      '<section class="m3p-detail" aria-label="The picture">',
      '<div class="m3p-detail-head">',
      f'<h2 dir="auto" tabindex="-1">{markup.text(one.title)}</h2>',
      '<button type="button" class="m3p-close" aria-label="Close the picture">'
      '×</button></div>',
      f'<div class="m3p-large">{picture}</div>',
      f'<p class="m3p-id">{markup.text(one.name)}</p>' if one.name else '']
  if one.explanation:
    parts.append(_words(one))
  for language, captions in one.captions.items():
    lines = ''.join(
        f'<li><span dir="auto" {markup.language_attributes(language)}>'
        f'{markup.text(caption.text)}</span>'
        f'<span class="m3p-number">{caption.score:.2f}</span></li>'
        for caption in captions)
    parts.append(f'<h3>{markup.language_name(language)}</h3>'
                 f'<ul class="m3p-captions">{lines}</ul>')
  if busy:
    parts.append(f'<p class="m3p-busy" role="status">{busy}</p>')
  return ''.join([*parts, '</section>'])


def _words(one: Detail) -> str:
  explanation = one.explanation
  figures = ''.join(
      heat.word(one.address, word, weights_R, explanation.boxes_R4)
      for word, weights_R in zip(
          explanation.words[:_MAX_WORDS], explanation.weights_WR,
          strict=False))
  left_out = len(explanation.words) - _MAX_WORDS
  more = f'<p class="m3p-note">and {left_out} more words</p>' * (left_out > 0)
  return (
      '<h3>Where each word looks</h3>'
      f'<p class="m3p-note">The joint encoder finds that '
      f'<q dir="auto">{markup.text(_short(one.query))}</q> fits with '
      f'{markup.percent(explanation.match)}. Stronger colour = more of the '
      'word’s attention, compared with the rest of the picture.</p>'
      f'<div class="m3p-words">{figures}</div>{more}')


def _short(query: str) -> str:
  return query if len(query) <= 80 else query[:79] + '…'
