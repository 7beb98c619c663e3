"""The languages of `configs/languages.py`: codes, names, and sources' codes."""

from collections.abc import Iterable, Sequence
import functools

from configs import languages as table
from input_pipeline import errors

# In a config, as the only code: every language that there is.
ALL = 'all'
_ROWS = {row.code: row for row in table.TABLE}


def codes() -> tuple[str, ...]:
  """Returns the public codes of all known languages, sorted."""
  return tuple(sorted(_ROWS))


def get(code: str) -> table.Language:
  """Returns the language's row.

  Raises:
    UserError: no such language; names the one that a source calls so, or the
      nearest.
  """
  if code not in _ROWS:
    ours = [row.code for row in table.TABLE
            if code in (*row.sources.values(), *row.also)]
    if ours:
      raise errors.UserError(
          f'unknown language {code!r}; did you mean {min(ours)!r}?')
  errors.check_choice('language', code, codes())
  return _ROWS[code]


def check(wanted: Sequence[str]) -> None:
  """Raises UserError at the first unknown language code."""
  for code in wanted:
    get(code)


def source_codes(source: str, wanted: Iterable[str] = ()) -> dict[str, str]:
  """Returns {the source's code: public code} of the languages it has.

  Args:
    source: 'tux_paint', 'cldr', 'udhr' or 'freedict'.
    wanted: public codes; none = all known ones.

  Raises:
    UserError: an unknown language among `wanted`.
  """
  pairs = ((get(code).sources[source], code)
           for code in (tuple(wanted) or codes()))
  return {theirs: code for theirs, code in pairs if theirs}


@functools.cache
def _aliases() -> dict[str, str]:
  found = {code.casefold(): code for code in codes()}
  for code in codes():
    found |= {alias.casefold(): code for alias in get(code).also}
  return found


def resolve(theirs: str) -> str:
  """Returns the public code of a data set's code, '' where none is known.

  Data sets write codes of ISO 639-1 and -3, old ones and their own: `zh`,
  `zh-Hans`, `ces`, `jp`, `iw`.
  """
  return _aliases().get(theirs.replace('-', '_').casefold(), '')


def edition(theirs: str) -> str:
  """Returns the public code of an edition of Wikipedia, '' = none is known."""
  return table.EDITION_CODES.get(theirs) or resolve(theirs)


def name(code: str) -> str:
  """Returns the English name of a language, its code where it has no row."""
  return _ROWS[code].name if code in _ROWS else code
