"""Khmer."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='km', name='Khmer', native_name='ខ្មែរ',
      also=('khm',),
      sources=dict(tux_paint='km', cldr='km', udhr='khm',
                   freedict='')))
