"""Korean."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ko', name='Korean', native_name='한국어',
      also=('kor',),
      sources=dict(tux_paint='ko', cldr='ko', udhr='kor',
                   freedict='')))
