"""What a visitor can ask for, answered as pieces of the page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import itertools
import os
from typing import NamedTuple

from absl import logging
import numpy as np

from input_pipeline import errors
from input_pipeline import languages as names
from m3p_jax import batch as batch_lib
from m3p_jax.search import inputs
from m3p_jax.search import rankings as rankings_lib
from m3p_jax.search import searcher as searcher_lib
from m3p_jax.serve import pictures
from m3p_jax.serve import views

# HTML of the page's elements by their names: `results`, `detail`.
Part = dict[str, str]
MODES = {'dual': 'Dual', 'rerank': 'Re-ranked', 'joint': 'Joint'}
# Near duplicates shown, and captions a language.
_SHOWN, _CAPTIONS = 12, 3
# Hypotheses of a caption that the model writes.
_BEAMS = 4
# Rankings of the joint encoder that are kept.
_REMEMBERED = 8
# Folders to choose from; of more only the upper ones.
_MAX_FOLDERS = 200
# Characters of a query; the model's positions end before.
MAX_QUERY = 5_000
# Pictures of a ranking that can be asked for.
DEEPEST = 1_000
_EXAMPLES = 7
# Where there are no captions to take examples from.
_WORDS = {'en': 'children playing', 'de': 'ein Hund am Strand',
          'fr': 'une rue la nuit', 'cs': 'lidé na kole', 'zh_CN': '红色的汽车',
          'ar': 'رجل يقرأ'}
# Languages that examples are taken from, where the collection has them.
_EXAMPLES_IN: tuple[str, ...] = (
    'en', 'de', 'ja', 'ar', 'hi', 'fr', 'ru', 'es', 'zh_CN', 'tr', 'cs')


class Gone(errors.UserError):
  """A picture that is not in the collection any more."""


class Card(NamedTuple):
  """A picture found."""
  key: str  # In the index.
  address: str  # Of its small copy.
  result: searcher_lib.Result
  date: str
  similar: list[str]  # Keys of its near duplicates that were found with it.


class Asked(NamedTuple):
  """What a visitor asks for: a query, or pictures like one."""
  query: str = ''
  like: str = ''  # Key of a picture.
  mode: str = 'dual'

  @property
  def is_long(self) -> bool:
    """Whether the joint encoder looks."""
    return self.mode != 'dual' and not self.like


_NOTHING, _ALL = Asked(), rankings_lib.Wanted()


class Finder:
  """Answers of one collection to all visitors; usable by several threads."""

  def __init__(self, searcher: searcher_lib.Searcher,
               left_out: Sequence[str] = ()):
    """`left_out` says what is not in the collection, a line a reason."""
    self.searcher, self.left_out = searcher, left_out
    self.languages, self.writes = searcher.languages, searcher.writes
    # Of what is said about a picture, whoever says it.
    self._told_in = list(dict.fromkeys([*self.languages, *self.writes]))
    # A match head that was never trained has nothing to say.
    self.modes = MODES if searcher.weights.can_match else {
        'dual': MODES['dual']}
    texts = searcher.index.captions
    self._guesser = inputs.Guesser(texts)
    known = searcher.weights.manifest.get('languages', ())
    self.examples = _examples(texts) or [
        (code, text) for code, text in _WORDS.items() if code in known]
    # What the joint encoder has looked at, for those who want more of it.
    self._looked_at: dict[Asked, rankings_lib.Ranking] = {}

  def page(self, asked: Asked = _NOTHING,
           wanted: rankings_lib.Wanted = _ALL,
           results: str = '') -> str:
    """Returns the page; `results` are those of what was asked."""
    weights, index = self.searcher.weights, self.searcher.index
    dataset = self.searcher.source.dataset
    # `captions` is what anybody's own pictures are prepared as.
    name = 'pictures' if dataset == 'captions' else dataset.replace('_', ' ')
    usual = [code for code in self._told_in if code in ('en', 'de')]
    return views.page(
        self.examples, asked=asked, wanted=wanted, results=results,
        title=name[:1].upper() + name[1:], modes=self.modes,
        folders=_shown_folders(index.folders), left_out=self.left_out,
        has_dates=not np.isnat(index.columns.day_I).all(),
        count=len(index.pictures), languages=self._told_in,
        chosen=usual or self._told_in[:2], max_query=MAX_QUERY,
        max_bytes=pictures.MAX_BYTES, model=weights.path.name
        if weights.step is None else f'step {weights.step:,}')

  def rankings(self, asked: Asked) -> Iterator[rankings_lib.Ranking]:
    """Yields ever better rankings of what is asked for."""
    searcher = self.searcher
    if asked.like:
      yield self.like(asked.like)
    elif asked.is_long and asked in self._looked_at:
      yield self._looked_at[asked]
    else:
      for ranking in searcher.stages(asked.query.strip(), mode=asked.mode):
        yield ranking
      if asked.is_long:
        self._looked_at[asked] = ranking
        for old in list(self._looked_at)[:-_REMEMBERED]:
          self._looked_at.pop(old, None)

  def like(self, picture: str | batch_lib.Regions) -> rankings_lib.Ranking:
    """Returns the ranking of the pictures like one: a key, or its regions."""
    searcher = self.searcher
    return searcher.ranking_near(
        searcher.index.vectors_IE[self.number(picture)]
        if isinstance(picture, str) else searcher.embed_images([picture])[0])

  def cards(self, ranking: rankings_lib.Ranking,
            wanted: rankings_lib.Wanted) -> tuple[list[Card], bool]:
    """Returns the pictures of a ranking that are wanted; are there more?"""
    index = self.searcher.index
    chosen, has_more = rankings_lib.choose(ranking, index, wanted)
    results = self.searcher.results_of(
        ranking, [one.number for one in chosen])
    return [Card(
        index.key(one.number),
        pictures.address(index, one.number, is_large=False), result,
        index.date(one.number), list(map(index.key, one.similar)))
            for one, result in zip(chosen, results, strict=True)], has_more

  def number(self, key: str) -> int:
    """Returns that of a picture, which a key names and never a path.

    Whatever was indexed since a page was opened, no other picture has its key.

    Raises:
      Gone: it is not here.
    """
    number = self.searcher.index.find(key)
    if number is None:
      raise Gone(
          'This picture is not in the collection any more: search again.')
    return number

  def describe(self, picture: str | batch_lib.Regions,
               languages: Sequence[str], k: int, write: bool,
               ) -> dict[str, list[searcher_lib.Description]]:
    """Returns captions that fit a picture, a key or its regions.

    They are the collection's, or those that the weights write.
    """
    if isinstance(picture, str):
      picture = self.searcher.regions_of(self.number(picture))
    return self.searcher.describe(
        picture, languages or (self.writes[:1] if write else self.languages),
        k, write=write)

  def search(self, asked: Asked, wanted: rankings_lib.Wanted) -> Iterator[Part]:
    """Yields ever better results as pieces of the page."""
    if not (asked.query.strip() or asked.like):
      yield {'results': views.notice(
          'What are you looking for?', 'Type a word or a sentence in any '
          'language, or drop a picture.', self.examples)}
      return
    guess = str(self._guesser.guess(asked.query))
    found = self.rankings(asked)
    try:
      first = next(found)
    except Gone:
      raise
    except errors.UserError:
      yield {'results': views.notice(
          'Nothing to search for in this', 'The query has no words that the '
          'model can read. Try another.', self.examples)}
      return
    for ranking in itertools.chain([first], found):
      yield self._results(ranking, asked, wanted, guess)

  def _results(self, ranking: rankings_lib.Ranking, asked: Asked,
               wanted: rankings_lib.Wanted, guess: str = '') -> Part:
    cards, has_more = self.cards(ranking, wanted)
    return {'results': views.results(
        cards, asked, wanted, guess=guess, seen=ranking.seen,
        wanted_by_joint=ranking.wanted, has_more=has_more
        and wanted.offset + wanted.k < DEEPEST,
        name=asked.like and self._name(asked.like))}

  def _name(self, key: str) -> str:
    return self.searcher.index.image_id(
        self.number(key)).rpartition('/')[2]

  def show(self, key: str, query: str,
           languages: Sequence[str]) -> Iterator[Part]:
    """Yields a picture of the collection, ever more of it explained.

    `query` is what was last searched for; empty = nothing.
    """
    index, number = self.searcher.index, self.number(key)
    alike = [(index.key(one), pictures.address(index, one, is_large=False))
             for one in index.alike(number)[:_SHOWN]]
    detail = views.Detail(
        pictures.address(index, number, is_large=True),
        index.caption(number), self._name(key), key, index.file(number),
        index.date(number), alike, query)
    is_explained = query and self.searcher.weights.can_match
    # Its records, which take seconds at first, are read for those alone.
    if not (is_explained or self._told_in):
      yield {'detail': views.detail(detail)}
      return
    yield {'detail': views.detail(detail, busy='Looking at the picture…')}
    regions = self.searcher.regions_of(number)
    if is_explained:
      detail = detail._replace(
          explanation=self.searcher.explain(regions, query))
    yield from self._described(detail, regions, languages)

  def look(self, regions: batch_lib.Regions, languages: Sequence[str],
           wanted: rankings_lib.Wanted) -> Iterator[Part]:
    """Yields pictures like a visitor's, and captions that fit it.

    Who asks for more of them has the captions.
    """
    yield self._results(self.like(regions), _NOTHING, wanted)
    if not wanted.offset:
      yield from self._described(views.Detail(
          '', '', 'Your picture', '', '', '', [], ''), regions, languages)

  def _described(self, detail: views.Detail, regions: batch_lib.Regions,
                 languages: Sequence[str]) -> Iterator[Part]:
    chosen = [code for code in self._told_in if code in languages]
    for language in chosen or self._told_in[:1]:
      name = names.name(language)
      if language in self.writes:
        yield {'detail': views.detail(detail, busy=f'Writing in {name}…')}
        detail = detail._replace(written=detail.written | {
            language: self._write(regions, language)})
      if language in self.languages:
        yield {'detail': views.detail(
            detail, busy=f'Reading the {name} captions…')}
        detail = detail._replace(
            captions=detail.captions | self.searcher.describe(
                regions, (language,), _CAPTIONS))
    yield {'detail': views.detail(detail)}

  def _write(self, regions: batch_lib.Regions, language: str) -> str:
    return self.searcher.describe(
        regions, (language,), _BEAMS, write=True)[language][0].text

  def warm_up(self) -> None:
    """Compiles what the first visitor will ask for: words."""
    self.searcher.search(' '.join(40 * [self._first_query.split()[0]]), 1)
    self.searcher.search(self._first_query, 1)

  def warm_up_pictures(self) -> None:
    """Compiles what who has found a picture will ask for.

    It reads records, for which TensorFlow is imported: seconds that nobody who
    looks for words need wait.
    """
    query = self._first_query
    try:
      first = self.searcher.regions_of(0)
    except errors.UserError as error:
      # Words find pictures without their records: an exported index's may be
      # elsewhere.
      logging.warning('nothing but words can be asked: %s', error)
      return
    self.searcher.embed_images([first])
    if self.searcher.weights.can_match:
      self.searcher.search(query, 1, mode='rerank')
      self.searcher.explain(first, query)
    if self.writes:
      self._write(first, self.writes[0])

  @property
  def _first_query(self) -> str:
    return self.examples[0][1] if self.examples else 'a'


def _examples(texts: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
  """Returns (language, short caption) pairs, each another language."""
  chosen: list[tuple[str, str]] = []
  wanted = [code for code in _EXAMPLES_IN if code in texts] or list(texts)
  for number, language in enumerate(wanted[:_EXAMPLES]):
    short = [text for text in texts[language] if 3 <= len(text) <= 24]
    if short:
      # Spread, so that no two examples are the same picture's.
      chosen.append((language, short[
          (2 * number + 1) * len(short) // (2 * _EXAMPLES)]))
  return chosen


def _shown_folders(folders: Sequence[str]) -> list[tuple[str, str]]:
  """Returns (folder, its name below what all have in common)."""
  shared = os.path.commonpath(folders) if folders and all(folders) else ''
  found = {'/'.join(parts[:depth + 1]) for parts in (
      folder.split('/') for folder in folders) for depth in range(len(parts))}
  found = {one for one in found if len(one) > len(shared)}
  while len(found) > _MAX_FOLDERS:
    deepest = max(one.count('/') for one in found)
    upper = {one for one in found if one.count('/') < deepest}
    if not upper:
      break
    found = upper
  return [(one, one.removeprefix(shared).lstrip('/')) for one in sorted(found)]
