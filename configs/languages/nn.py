"""Norwegian Nynorsk."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='nn', name='Norwegian Nynorsk', native_name='norsk nynorsk',
      also=('nno',),
      sources=dict(tux_paint='nn', cldr='nn', udhr='nno',
                   freedict='')))
