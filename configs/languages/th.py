"""Thai."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='th', name='Thai', native_name='ไทย',
      also=('tha',),
      sources=dict(tux_paint='th', cldr='th', udhr='tha',
                   freedict='')))
