"""Albanian."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='sq', name='Albanian', native_name='shqip',
      also=('als', 'sqi'),
      sources=dict(tux_paint='sq', cldr='sq', udhr='als',
                   freedict='')))
