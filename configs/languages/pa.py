"""Punjabi."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='pa', name='Punjabi', native_name='ਪੰਜਾਬੀ',
      also=('pan',),
      sources=dict(tux_paint='', cldr='pa', udhr='pan',
                   freedict='')))
