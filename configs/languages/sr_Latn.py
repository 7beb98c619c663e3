"""Serbian (Latin)."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sr_Latn', name='Serbian (Latin)', native_name='srpski',
      also=(),
      sources=dict(tux_paint='sr@latin', cldr='sr-Latn', udhr='srp_latn',
                   freedict='')))
