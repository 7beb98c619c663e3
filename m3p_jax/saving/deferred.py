"""Parameters that are made when they are written, one after the other.

A checkpoint is then written with memory for its largest array, not for all.
"""

from collections.abc import Callable
import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

# Arrays are written in chunks, and these to files of that size: until a file
# is full, TensorStore keeps it in memory.
_CHUNK_BYTES = 2**22
_FILE_BYTES = 2**24


@dataclasses.dataclass(frozen=True)
class Deferred:
  """A float32 array that does not exist yet.

  Attributes:
    shape: of the array.
    make: returns it.
  """
  shape: tuple[int, ...]
  make: Callable[[], Any]
  dtype = np.dtype(np.float32)

  @property
  def ndim(self) -> int:
    return len(self.shape)

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def nbytes(self) -> int:
    return self.size * self.dtype.itemsize

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy
    return np.asarray(self.make(), dtype or self.dtype)


def make(tree: Any) -> Any:
  """Returns the tree with every array made."""
  return jax.tree.map(np.asarray, tree)


def save(path: pathlib.Path, **items: Any) -> None:
  """Writes trees of arrays as one Orbax checkpoint.

  Args:
    path: of its folder, which must not exist.
    **items: trees whose leaves are arrays or Deferred.
  """
  handlers = ocp.type_handlers.create_type_handler_registry(
      (jax.Array, ocp.type_handlers.ArrayHandler()), (Deferred, _Handler()))
  saves = {}
  for name, tree in items.items():
    tree = jax.tree.map(_defer, tree)
    saves[name] = ocp.args.PyTreeSave(
        tree, jax.tree.map(
            lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree),
        ocdbt_target_data_file_size=_FILE_BYTES)
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**{
      name: ocp.PyTreeCheckpointHandler(type_handler_registry=handlers)
      for name in items})) as checkpointer:
    checkpointer.save(path.absolute(), args=ocp.args.Composite(**saves))


def _defer(leaf: Any) -> Deferred:
  return leaf if isinstance(leaf, Deferred) else Deferred(
      leaf.shape, lambda: leaf)


class _Handler(ocp.type_handlers.NumpyHandler):
  """Makes and writes one array before it makes the next, largest first."""

  def __init__(self):
    super().__init__(deepcopy_host_arrays=False)

  async def serialize(self, values, infos, args=None):
    # What writing leaves behind is not yet there when the largest one is made.
    for value, info, arg in sorted(
        zip(values, infos, args, strict=True),
        key=lambda request: request[0].nbytes, reverse=True):
      written = await super().serialize([np.asarray(value)], [info], [arg])
      for future in written:
        future.result()
      # They hold the array.
      del written, future
    return []
