"""Greek."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='el', name='Greek', native_name='Ελληνικά',
      also=('ell',),
      sources=dict(tux_paint='el', cldr='el', udhr='ell_monotonic',
                   freedict='ell')))
