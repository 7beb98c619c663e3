"""Filipino."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='fil', name='Filipino', native_name='Filipino',
      also=('tl', 'tgl'),
      sources=dict(tux_paint='', cldr='fil', udhr='tgl',
                   freedict='')))
