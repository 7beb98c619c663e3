"""Burmese."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='my', name='Burmese', native_name='မြန်မာ',
      also=('mya',),
      sources=dict(tux_paint='', cldr='my', udhr='mya',
                   freedict='')))
