"""Azerbaijani."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='az', name='Azerbaijani', native_name='azərbaycan',
      also=('azj', 'aze'),
      sources=dict(tux_paint='', cldr='az', udhr='azj_latn',
                   freedict='')))
