"""Croatian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='hr', name='Croatian', native_name='hrvatski',
      also=('hrv',),
      sources=dict(tux_paint='hr', cldr='hr', udhr='hrv',
                   freedict='hrv')))
