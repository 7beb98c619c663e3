"""Arabic."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='ar', name='Arabic', native_name='العربية',
      also=('arb', 'ara'),
      sources=dict(tux_paint='ar', cldr='ar', udhr='arb',
                   freedict='ara')))
