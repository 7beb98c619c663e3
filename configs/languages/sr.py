"""Serbian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sr', name='Serbian', native_name='српски',
      also=('srp',),
      sources=dict(tux_paint='sr', cldr='sr', udhr='srp_cyrl',
                   freedict='')))
