"""The languages of `configs/languages.py`: codes, names, and sources' codes."""

from collections.abc import Iterable, Sequence
import functools

from configs import languages as table
from input_pipeline import errors


@functools.cache
def codes() -> tuple[str, ...]:
  """Returns the public codes of all known languages, sorted."""
  return tuple(sorted(_rows()))


@functools.cache
def _rows() -> dict[str, table.Language]:
  return {row.code: row for row in table.TABLE}


def get(code: str) -> table.Language:
  """Returns the language's row.

  Raises:
    UserError: no such language; names the one that a source calls so, or the
      nearest.
  """
  if code not in codes():
    ours = [known for known in codes()
            if code in (*get(known).sources.values(), *get(known).also)]
    if ours:
      raise errors.UserError(
          f'unknown language {code!r}; did you mean {ours[0]!r}?')
  errors.check_choice('language', code, codes())
  return _rows()[code]


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
  """Returns {code in lower case: public code} of what data sets write."""
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


def name(code: str) -> str:
  """Returns the English name of a language, its code where it has no row."""
  return get(code).name if code in codes() else code


def check(wanted: Sequence[str]) -> None:
  """Raises UserError at the first unknown language code."""
  for code in wanted:
    get(code)
