"""Czech."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='cs', name='Czech', native_name='čeština',
      also=('ces', 'cz'),
      sources=dict(tux_paint='cs', cldr='cs', udhr='ces',
                   freedict='ces')))
