"""What a visitor can ask for, answered as pieces of the page."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
import itertools
import threading

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.searching import searcher as searcher_lib
from m3p_jax.serve import languages as languages_lib
from m3p_jax.serve import markup
from m3p_jax.serve import render
from m3p_jax.serve import renditions
from m3p_jax.serve import uploads as uploads_lib

MODES = {'dual': 'Dual', 'rerank': 'Re-ranked', 'joint': 'Joint'}
# Pictures shown, and captions a language.
_SHOWN, _CAPTIONS = 24, 3
# Characters of a query that are read; the model's positions end before.
MAX_QUERY = 5_000
_EXAMPLES = 7
# Languages that examples are taken from, where the collection has them.
_EXAMPLES_IN: tuple[str, ...] = (
    'en', 'de', 'ja', 'ar', 'hi', 'fr', 'ru', 'es', 'zh_CN', 'tr', 'cs')
_SESSIONS = 1_000


class Finder:
  """Answers of one collection to all visitors; usable by several threads."""

  def __init__(self, searcher: searcher_lib.Searcher):
    """Reads the collection of `searcher`."""
    self.searcher = searcher
    self.uploads = uploads_lib.Uploads(searcher.read)
    self.languages = searcher.languages
    texts = {language: list(searcher.source.captions(
        language, searcher.weights)) for language in self.languages}
    self._guesser = languages_lib.Guesser(texts)
    self._latest: OrderedDict[str, int] = OrderedDict()
    self._count = itertools.count()
    self._lock = threading.Lock()
    self.examples = _examples(texts)

  def header(self) -> str:
    """Returns the head of the page."""
    weights = self.searcher.weights
    return render.header(
        self.searcher.source.dataset, len(self.searcher.index.image_ids),
        self.languages, f'{weights.path.name}' if weights.step is None
        else f'step {weights.step:,}')

  def welcome(self) -> str:
    """Returns what stands where results will be."""
    return render.welcome(self.examples)

  def search(self, query: str, mode: str, session: str) -> Iterator[str]:
    """Yields ever better results; stops where the visitor asks anew.

    Args:
      query: as typed.
      mode: of `MODES`.
      session: of the visitor.
    """
    query = query.strip()[:MAX_QUERY]
    if not query:
      yield render.notice(
          'What are you looking for?', 'Type a word or a sentence in any '
          'language, or drop a picture.', self.examples)
      return
    mine = self._begin(session)
    guess = str(self._guesser.guess(query))
    try:
      for ranking in self.searcher.stages(query, mode=mode):
        if self._latest.get(session) != mine:
          return
        yield render.results(
            self.searcher.results(ranking, _SHOWN),
            self._addresses(ranking.order_I[:_SHOWN].tolist()),
            query=query, guess=guess, mode=mode, seen=ranking.seen,
            wanted=ranking.wanted)
    except errors.UserError:
      yield render.notice(
          'Nothing to search for in this', 'The query has no words that the '
          'model can read. Try another.', self.examples)

  def show(self, number: int, query: str,
           languages: Sequence[str]) -> Iterator[str]:
    """Yields a picture of the collection, ever more of it explained.

    Args:
      number: of the picture.
      query: last searched for; empty = none.
      languages: of the captions.
    """
    index = self.searcher.index
    if not 0 <= number < len(index.image_ids):
      return
    image_id = index.image_ids[number]
    detail = render.Detail(
        renditions.address(index, number, is_large=True),
        index.captions[number] or image_id, image_id,
        self._regions(image_id), query)
    yield render.detail(detail, busy='Looking at the picture…')
    if query:
      detail = detail._replace(
          explanation=self.searcher.explain(detail.regions, query))
    yield from self._described(detail, languages)

  def look(self, name: str, languages: Sequence[str],
           session: str) -> Iterator[tuple[str, str]]:
    """Yields (results, detail) of a visitor's picture.

    Args:
      name: of the picture in the uploads.
      languages: of the captions.
      session: of the visitor.
    """
    self._begin(session)
    try:
      regions = self.uploads.get(name)
    except uploads_lib.Refused as refused:
      yield render.notice('The picture is gone', str(refused),
                          self.examples), ''
      return
    found = self.searcher.similar(regions, _SHOWN)
    place = {one: i for i, one in enumerate(self.searcher.index.image_ids)}
    results = render.results(
        found, self._addresses([place[one.image_id] for one in found]),
        query='', guess='', mode='dual', seen=0, wanted=0)
    detail = render.Detail('', 'Your picture', '', regions, '')
    for part in self._described(detail, languages):
      yield results, part

  def _described(self, detail: render.Detail,
                 languages: Sequence[str]) -> Iterator[str]:
    captions = {}
    for language in languages or self.languages[:1]:
      yield render.detail(detail._replace(captions=captions), busy='Reading '
                          f'the {markup.language_name(language)} captions…')
      captions = captions | self.searcher.describe(
          detail.regions, (language,), _CAPTIONS)
    yield render.detail(detail._replace(captions=captions))

  def _addresses(self, numbers: Sequence[int]) -> dict[int, str]:
    """Returns {number: address of its small copy}."""
    index = self.searcher.index
    return {number: renditions.address(index, number, is_large=False)
            for number in numbers}

  def _regions(self, image_id: str) -> batch_lib.Regions:
    """Returns those of the collection, whatever file has that name here."""
    return self.searcher.source.regions_of(image_id, self.searcher.weights)

  def _begin(self, session: str) -> int:
    """Returns a number that makes the session's older searches stop."""
    mine = next(self._count)
    with self._lock:
      self._latest[session] = mine
      self._latest.move_to_end(session)
      while len(self._latest) > _SESSIONS:
        self._latest.popitem(last=False)
    return mine

  def warm_up(self) -> None:
    """Compiles what the first visitors will ask for."""
    query = self.examples[0][1] if self.examples else 'a'
    self.searcher.search(' '.join(40 * [query.split()[0]]), 1)
    for mode in ('dual', 'rerank'):
      self.searcher.search(query, 1, mode=mode)
    first = self._regions(self.searcher.index.image_ids[0])
    self.searcher.embed_images([first])
    self.searcher.explain(first, query)


def _examples(texts: dict[str, list[str]]) -> list[tuple[str, str]]:
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
