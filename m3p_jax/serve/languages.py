"""Says what language a query may be in, and no more than can be known."""

from collections.abc import Iterable, Mapping
import itertools
from typing import NamedTuple
import unicodedata

from input_pipeline import captions as captions_lib
from input_pipeline import languages
from m3p_jax.search import inputs

# Captions of a language that its script is told by.
_SAMPLE = 64
# More languages than this that fit equally well say nothing.
_MOST = 3
# Scripts that tell the language; others are written in many.
_OF_ONE = frozenset((
    'Greek', 'Hebrew', 'Tamil', 'Telugu', 'Gujarati', 'Kannada', 'Malayalam',
    'Gurmukhi', 'Sinhala', 'Thai', 'Lao', 'Khmer', 'Burmese', 'Japanese',
    'Korean', 'Georgian', 'Armenian'))


class Guess(NamedTuple):
  """What a query looks like."""
  languages: tuple[str, ...]  # That fit best; none where too many do.

  def __str__(self) -> str:
    """In words; '' where nothing can be said."""
    names = [languages.name(code) for code in self.languages]
    return 'looks like ' + ' or '.join(names) if names else ''


class Guesser:
  """Compares queries with the collection's captions."""

  def __init__(self, texts: Mapping[str, Iterable[str]]):
    self._words, self._scripts, self._letters = {}, {}, {}
    for language, captions in texts.items():
      captions = list(map(_form, captions))
      self._words[language] = {
          word for text in captions for word in _words(text)}
      self._letters[language] = set(itertools.chain.from_iterable(captions))
      self._scripts[language] = inputs.main_script(
          ' '.join(captions[:_SAMPLE]))

  def guess(self, query: str) -> Guess:
    """Returns the languages whose captions share most words with a query.

    Where no word is known, a language stands there only if its script is its
    own: a query may be in any that the model has learned.
    """
    query = _form(query)
    script = inputs.main_script(query)
    fitting = [language for language, own in self._scripts.items()
               if script and (own == script or (
                   # Japanese that happens to be written without syllables.
                   script == 'Chinese' and own == 'Japanese'))]
    if len(fitting) > 1 or script not in _OF_ONE:
      words = _words(query)
      known = {language: sum(word in self._words[language] for word in words)
               for language in fitting}
      if not any(known.values()) and not inputs.has_spaces(query):
        # Without spaces there may be no word to find: letters have to do.
        known = {language: sum(
            letter in self._letters[language] for letter in query)
                 for language in fitting}
      best = max(known.values(), default=0)
      fitting = [language for language in fitting if best
                 and known[language] == best]
    return Guess(tuple(fitting) if len(fitting) <= _MOST else ())


def _form(text: str) -> str:
  # As the tokenizer reads it, composed: Macs type and name files decomposed.
  return unicodedata.normalize('NFKC', text)


def _words(text: str) -> list[str]:
  cores = (captions_lib.split_word(word).core for word in text.split())
  return [core.casefold() for core in cores if core]
