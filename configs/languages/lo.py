"""Lao."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='lo', name='Lao', native_name='ລາວ',
      also=('lao',),
      sources=dict(tux_paint='', cldr='lo', udhr='lao',
                   freedict='')))
