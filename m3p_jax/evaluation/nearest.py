"""Two stages over a gallery of any size, without a matrix of all scores.

The dual encoder's first candidates are exact: by matrix products in blocks, or
by FAISS where it is installed and the gallery is large.

Letters: Q queries, N candidates, E shared space, K candidates wanted.
"""

import functools
import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import rerank

# FAISS pays from so many candidates on.
FAISS_FROM = 100_000
# Scores in memory at once.
_BLOCK = 2 ** 26


def top_k_of(queries_QE: np.ndarray, gallery_NE: np.ndarray, k: int, *,
             use_faiss: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
  """Returns (numbers int64 [Q, K], scores float32 [Q, K]), best first.

  A gallery of less than k candidates gives all it has. FAISS is exact too (a
  flat index); `use_faiss` None = where it is installed and the gallery has
  `FAISS_FROM` candidates.

  Raises:
    ValueError: k below 1, or an empty gallery.
  """
  k = min(k, len(gallery_NE))
  if k < 1:
    raise ValueError(f'{len(gallery_NE)} candidates, k at most {k}; allowed: '
                     'at least 1 of both')
  if use_faiss is None:
    use_faiss = (len(gallery_NE) >= FAISS_FROM
                 and importlib.util.find_spec('faiss') is not None)
  if use_faiss:
    import faiss  # Optional: requirements-faiss.txt.
    index = faiss.IndexFlatIP(gallery_NE.shape[1])
    index.add(np.ascontiguousarray(gallery_NE, np.float32))
    scores_QK, found_QK = index.search(
        np.ascontiguousarray(queries_QE, np.float32), k)
    return found_QK, scores_QK
  gallery = jax.device_put(np.asarray(gallery_NE, np.float32))
  size = max(1, _BLOCK // len(gallery_NE))
  parts = [_top_k(np.asarray(queries_QE[start:start + size], np.float32),
                  gallery, k=k) for start in range(0, len(queries_QE), size)]
  scores_QK, found_QK = (
      np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1))
  return found_QK.astype(np.int64), scores_QK


@functools.partial(jax.jit, static_argnames='k')
def _top_k(queries_QE, gallery_NE, *, k: int):
  # Accelerators would multiply in bfloat16 and order near ties at random.
  return jax.lax.top_k(jnp.einsum(
      'QE,NE->QN', queries_QE, gallery_NE,
      precision=jax.lax.Precision.HIGHEST), k)


class Found(NamedTuple):
  """Numbers of the pictures of Q captions, best first, and their scores."""
  picture_QK: np.ndarray
  score_QK: np.ndarray


def search(engine: engine_lib.Engine, regions: batch_lib.Regions,
           texts: engine_lib.Texts, *, top_k: int,
           joint_weight: float = -1.0) -> Found:
  """Returns the pictures of each caption, found in two stages.

  For galleries that are too large for the matrices of an evaluation; the order
  is that of `rerank.reorder`.
  """
  found_QK, cosine_QK = top_k_of(
      engine.embed_texts(texts), engine.embed_images(regions), top_k)
  match_QK = engine.match(
      regions, texts, found_QK.ravel(),
      np.repeat(np.arange(len(found_QK)), found_QK.shape[1]),
      title='pairs').reshape(found_QK.shape)
  score_QK = rerank.reorder(
      engine.logit_scale() * cosine_QK, match_QK, top_k=found_QK.shape[1],
      joint_weight=joint_weight)
  order_QK = np.argsort(-score_QK, axis=1, kind='stable')
  return Found(np.take_along_axis(found_QK, order_QK, 1),
               np.take_along_axis(score_QK, order_QK, 1))
