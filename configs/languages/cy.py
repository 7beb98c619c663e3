"""Welsh."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='cy', name='Welsh', native_name='Cymraeg',
      also=('cym',),
      sources=dict(tux_paint='cy', cldr='cy', udhr='cym',
                   freedict='cym')))
