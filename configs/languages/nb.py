"""Norwegian Bokmål."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='nb', name='Norwegian Bokmål', native_name='norsk bokmål',
      also=('nob', 'no', 'nor'),
      sources=dict(tux_paint='nb', cldr='no', udhr='nob',
                   freedict='nor')))
