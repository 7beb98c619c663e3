"""Hungarian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='hu', name='Hungarian', native_name='magyar',
      also=('hun',),
      sources=dict(tux_paint='hu', cldr='hu', udhr='hun',
                   freedict='hun')))
