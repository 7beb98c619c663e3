"""What the Transformer gives back.

Letters: B rows, L text length, R regions, D width, E shared space.
"""

from typing import NamedTuple

import jax


class Encoded(NamedTuple):
  """What the layers made of the rows.

  Attributes:
    regions_BRD: last hidden states, 0 at padding; None without regions.
    text_BLD: last hidden states, 0 at padding.
    product_BE: float32, the picture's unit vector times the caption's; None
      where the match head does not read it.
  """
  regions_BRD: jax.Array | None
  text_BLD: jax.Array
  product_BE: jax.Array | None = None
