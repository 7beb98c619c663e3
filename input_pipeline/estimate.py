"""What preparing a set would take, before it begins: `prepare --estimate`."""

import itertools
import os
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

from input_pipeline import builder as builder_lib
from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import shards

# Pictures whose rate and size are those of all; the first ones, in which the
# networks are compiled, are not timed.
_MEASURED, _WARM_UP = 500, 32


class Estimate(NamedTuple):
  """Of a whole set: pictures, bytes on disk, hours of one process here."""
  pictures: int
  bytes: float
  hours: float


def measure(builder_class: Any, options: builder_lib.Options,
            data_dir: str | os.PathLike[str]) -> Estimate:
  """Returns an estimate from a set's first 500 pictures, of which none stays.

  Raises:
    UserError: the set has no pictures, or none can be used.
  """
  if not issubclass(builder_class, builder_lib.ImageTextBuilder):
    raise errors.UserError(
        f'--estimate: {builder_class.name} has no pictures')
  path = pathlib.Path(data_dir).resolve()
  there = next(one for one in (path, *path.parents) if one.is_dir())
  with tempfile.TemporaryDirectory(dir=there) as place:
    folder = options.shards = options.copies = pathlib.Path(place)
    for name in copies.FOLDERS:
      (folder / name).mkdir()
    builder = builder_class(options=options, data_dir=folder)
    items = iter(builder.chosen_items()[0])
    first = list(itertools.islice(items, _WARM_UP))
    timed = list(itertools.islice(items, _MEASURED - _WARM_UP)) or first
    rest, seconds = sum(1 for _ in items), 0.0
    for number, part in enumerate((first, timed)):
      start = time.perf_counter()
      shards.write(folder, shards.Shard('train', number, part),
                   builder.make_records, builder.info.features)
      seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in folder.rglob('*')
               if file.is_file() and not file.is_symlink())
  total = rest + len(first) + (len(timed) if timed is not first else 0)
  if not total:
    raise errors.UserError(f'--estimate: {builder.name} has no pictures')
  return Estimate(total, total * size / (len(first) + len(timed)),
                  total * seconds / len(timed) / 3600)
