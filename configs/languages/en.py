"""English."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='en', name='English', native_name='English',
      also=('eng',),
      sources=dict(tux_paint='en', cldr='en', udhr='eng',
                   freedict='eng')))
