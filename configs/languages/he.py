"""Hebrew."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='he', name='Hebrew', native_name='עברית',
      also=('heb', 'iw'),
      sources=dict(tux_paint='he', cldr='he', udhr='heb',
                   freedict='')))
