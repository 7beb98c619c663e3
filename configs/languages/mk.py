"""Macedonian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='mk', name='Macedonian', native_name='македонски',
      also=('mkd',),
      sources=dict(tux_paint='mk', cldr='mk', udhr='mkd',
                   freedict='')))
