"""Danish."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='da', name='Danish', native_name='dansk',
      also=('dan',),
      sources=dict(tux_paint='da', cldr='da', udhr='dan',
                   freedict='dan')))
