"""Latvian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='lv', name='Latvian', native_name='latviešu',
      also=('lvs', 'lav'),
      sources=dict(tux_paint='lv', cldr='lv', udhr='lav',
                   freedict='')))
