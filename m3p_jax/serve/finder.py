"""What a visitor can ask for, answered as pieces of the page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from input_pipeline import errors
from input_pipeline import languages as names
from m3p_jax import batch as batch_lib
from m3p_jax.search import inputs
from m3p_jax.search import rankings as rankings_lib
from m3p_jax.search import searcher as searcher_lib
from m3p_jax.serve import languages as languages_lib
from m3p_jax.serve import pictures
from m3p_jax.serve import views

# HTML of the page's elements by their names: `results`, `detail`.
Part = dict[str, str]
MODES = {'dual': 'Dual', 'rerank': 'Re-ranked', 'joint': 'Joint'}
# Pictures shown, and captions a language.
_SHOWN, _CAPTIONS = 24, 3
# Characters of a query; the model's positions end before.
MAX_QUERY = 5_000
# Pictures of a ranking that can be asked for.
DEEPEST = 1_000
_EXAMPLES = 7
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


class Finder:
  """Answers of one collection to all visitors; usable by several threads."""

  def __init__(self, searcher: searcher_lib.Searcher):
    self.searcher = searcher
    self.languages = searcher.languages
    # A match head that was never trained has nothing to say.
    self.modes = MODES if searcher.weights.can_match else {
        'dual': MODES['dual']}
    texts = searcher.index.captions
    self._guesser = languages_lib.Guesser(texts)
    self.examples = _examples(texts)

  def page(self) -> str:
    """Returns the page as it is before anything was asked for."""
    weights, dataset = self.searcher.weights, self.searcher.source.dataset
    # `captions` is what anybody's own pictures are prepared as.
    name = 'pictures' if dataset == 'captions' else dataset.replace('_', ' ')
    usual = [code for code in self.languages if code in ('en', 'de')]
    return views.page(
        self.examples, title=name[:1].upper() + name[1:], modes=self.modes,
        count=len(self.searcher.index.pictures), languages=self.languages,
        chosen=usual or self.languages[:2], max_query=MAX_QUERY,
        max_bytes=pictures.MAX_BYTES, model=weights.path.name
        if weights.step is None else f'step {weights.step:,}')

  def rankings(self, query: str,
               mode: str) -> Iterator[rankings_lib.Ranking]:
    """Yields ever better rankings of a query in one of `MODES`."""
    yield from self.searcher.stages(query.strip(), mode=mode)

  def like(self, picture: str | batch_lib.Regions
           ) -> Iterator[rankings_lib.Ranking]:
    """Yields the ranking of the pictures like one: a key, or its regions."""
    searcher = self.searcher
    yield searcher.ranking_near(
        searcher.index.vectors_IE[self.number(picture)][None]
        if isinstance(picture, str) else searcher.embed_images([picture]))

  def cards(self, ranking: rankings_lib.Ranking, k: int) -> list[Card]:
    """Returns the first k pictures of a ranking."""
    index = self.searcher.index
    return [Card(
        index.key(number),
        pictures.address(index, number, is_large=False), result)
            for number, result in zip(
                ranking.best(k).tolist(), self.searcher.results(ranking, k),
                strict=True)]

  def number(self, key: str) -> int:
    """Returns that of a picture, which a key names and never a path.

    Whatever was indexed since a page was opened, no other picture has its key.

    Raises:
      Gone: it is not here.
    """
    keys = self.searcher.index.keys
    if key not in keys:
      raise Gone(
          'This picture is not in the collection any more: search again.')
    return keys[key]

  def describe(self, picture: str | batch_lib.Regions,
               languages: Sequence[str], k: int
               ) -> dict[str, list[searcher_lib.Description]]:
    """Returns captions that fit a picture: a key, or its regions."""
    if isinstance(picture, str):
      picture = self.searcher.regions_of(self.number(picture))
    return self.searcher.describe(picture, languages or self.languages, k)

  def search(self, query: str, mode: str) -> Iterator[Part]:
    """Yields ever better results of a query as pieces of the page."""
    if not query.strip():
      yield {'results': views.notice(
          'What are you looking for?', 'Type a word or a sentence in any '
          'language, or drop a picture.', self.examples)}
      return
    guess = str(self._guesser.guess(query))
    try:
      for ranking in self.rankings(query, mode):
        yield {'results': views.results(
            self.cards(ranking, _SHOWN), query=query.strip(), guess=guess,
            mode=mode, seen=ranking.seen, wanted=ranking.wanted)}
    except inputs.NoWords:
      yield {'results': views.notice(
          'Nothing to search for in this', 'The query has no words that the '
          'model can read. Try another.', self.examples)}

  def show(self, key: str, query: str,
           languages: Sequence[str]) -> Iterator[Part]:
    """Yields a picture of the collection, ever more of it explained.

    `query` is what was last searched for; empty = nothing.
    """
    index, number = self.searcher.index, self.number(key)
    image_id = index.image_ids[number]
    detail = views.Detail(
        pictures.address(index, number, is_large=True),
        index.caption(number) or image_id, image_id,
        self.searcher.regions_of(number), query)
    yield {'detail': views.detail(detail, busy='Looking at the picture…')}
    if query and self.searcher.weights.can_match:
      detail = detail._replace(
          explanation=self.searcher.explain(detail.regions, query))
    yield from self._described(detail, languages)

  def look(self, regions: batch_lib.Regions,
           languages: Sequence[str]) -> Iterator[Part]:
    """Yields pictures like a visitor's, and captions that fit it."""
    (ranking,) = self.like(regions)
    yield {'results': views.results(self.cards(ranking, _SHOWN))}
    yield from self._described(
        views.Detail('', 'Your picture', '', regions, ''), languages)

  def _described(self, detail: views.Detail,
                 languages: Sequence[str]) -> Iterator[Part]:
    chosen = [code for code in self.languages if code in languages]
    captions = {}
    for language in chosen or self.languages[:1]:
      yield {'detail': views.detail(
          detail._replace(captions=captions),
          busy=f'Reading the {names.name(language)} captions…')}
      captions = captions | self.searcher.describe(
          detail.regions, (language,), _CAPTIONS)
    yield {'detail': views.detail(detail._replace(captions=captions))}

  def warm_up(self) -> None:
    """Compiles what the first visitors will ask for."""
    query = self.examples[0][1] if self.examples else 'a'
    self.searcher.search(' '.join(40 * [query.split()[0]]), 1)
    for mode in self.modes.keys() & {'dual', 'rerank'}:
      self.searcher.search(query, 1, mode=mode)
    first = self.searcher.regions_of(0)
    self.searcher.embed_images([first])
    if self.searcher.weights.can_match:
      self.searcher.explain(first, query)


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
