"""Chinese (simplified)."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the language's code, names, and what each source calls it."""
  return ml_collections.ConfigDict(dict(
      code='zh_CN', name='Chinese (simplified)', native_name='简体中文',
      also=('cmn', 'zh', 'zho', 'zh_Hans', 'zhs'),
      sources=dict(tux_paint='zh_CN', cldr='zh', udhr='cmn_hans',
                   freedict='')))
