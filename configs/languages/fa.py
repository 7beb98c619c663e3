"""Persian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='fa', name='Persian', native_name='فارسی',
      also=('pes', 'fas', 'per'),
      sources=dict(tux_paint='fa', cldr='fa', udhr='pes_1',
                   freedict='')))
