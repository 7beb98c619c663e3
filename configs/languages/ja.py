"""Japanese."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ja', name='Japanese', native_name='日本語',
      also=('jpn', 'jp'),
      sources=dict(tux_paint='ja', cldr='ja', udhr='jpn',
                   freedict='jpn')))
