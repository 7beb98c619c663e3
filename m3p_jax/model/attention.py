"""How much the joint encoder's text looks at the regions of its picture.

Letters: B rows, N layers, H heads, L text length, R regions, T=R+L.
"""

from typing import Any

from flax import linen as nn
import jax

from m3p_jax import batch as batch_lib
from m3p_jax.model import m3p
from m3p_jax.model import transformer


def text_to_regions(module: m3p.M3P, params: Any,
                    batch: batch_lib.Batch) -> jax.Array:
  """Returns float32 [B, L, R], the mean over layers and heads.

  Text looks at text as well, so the weights of a position sum over R to less
  than 1. A region that is padding has weight 0.

  Args:
    module: the model.
    params: its parameters.
    batch: rows with regions.
  """
  _, sown = nn.apply(
      lambda model: model.encode(batch, deterministic=True), module,
      mutable=[transformer.ATTENTION])({'params': params})
  # Stacked by the scan over layers.
  (weights_NBHTT,) = sown[transformer.ATTENTION]['encoder']['attention'][
      'weights']
  num_regions = batch.regions.mask_BR.shape[1]
  weights_NBHLR = weights_NBHTT[..., num_regions:, :num_regions]
  return weights_NBHLR.mean((0, 2))
