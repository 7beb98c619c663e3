"""Writes every format of regions as its own tools do, without our code.

A function has the name of its format, with a variant after it; it writes
images into a folder and returns the path of what it wrote. `read` reads it as
preparing a dataset does.
"""

import base64
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import io
import pathlib
import pickle

import h5py
import lmdb
import msgpack
import numpy as np

from input_pipeline import errors
from input_pipeline import regions
from input_pipeline.regions import source
from tests import torch_files

CLASSES = 1600


@dataclasses.dataclass(frozen=True)
class Image:
  """What a detector found in an image; classes count from 0."""
  name: str
  height: int
  width: int
  boxes: np.ndarray
  features: np.ndarray
  objects: np.ndarray
  scores: np.ndarray


def image(name: str, *, seed: int, count: int = 3, height: int = 48,
          width: int = 64, feature_dim: int = 5,
          num_classes: int = CLASSES) -> Image:
  """Returns a made-up image; some box reaches its right and bottom edges."""
  draw = np.random.default_rng(seed)
  corners = draw.random((count, 2, 2)).astype(np.float32)
  corners.sort(axis=1)
  corners[0, 1] = 1
  boxes = corners.reshape(count, 4) * np.float32([width, height] * 2)
  scores = draw.random((count, num_classes)).astype(np.float32)
  objects = draw.integers(0, num_classes, count)
  scores[np.arange(count), objects] = 2
  return Image(
      name, height, width, boxes,
      draw.normal(size=(count, feature_dim)).astype(np.float32), objects,
      scores)


def padded(array: np.ndarray, rows: int) -> np.ndarray:
  """Returns `array` with zeros up to `rows`."""
  return np.concatenate(
      [array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])


def _base64(array: np.ndarray) -> bytes:
  return base64.b64encode(array.tobytes())


def _lines(path: pathlib.Path, rows) -> pathlib.Path:
  path.write_bytes(b''.join(
      b'\t'.join(v if isinstance(v, bytes) else str(v).encode() for v in row)
      + b'\n' for row in rows))
  return path


def butd_tsv(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  return _lines(folder / 'a.tsv', [
      (i.name, i.width, i.height, len(i.boxes), _base64(i.boxes),
       _base64(i.features)) for i in images])


def lxmert_tsv(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  return _lines(folder / 'a.tsv', [
      (i.name, i.height, i.width, _base64(i.objects.astype(np.int64)),
       _base64(i.scores.max(axis=1)), _base64(i.objects.astype(np.int64)),
       _base64(i.scores.max(axis=1)), len(i.boxes), _base64(i.boxes),
       _base64(i.features)) for i in images])


def volta_h5(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  with h5py.File(folder / 'a.h5', 'w') as file:
    for i in images:
      group = file.create_group(i.name)
      for name, value in _volta(i).items():
        group.create_dataset(name, data=value)
  return folder / 'a.h5'


def _volta(i: Image) -> dict:
  confidence = i.scores.max(axis=1)
  return {'features': i.features, 'obj_id': i.objects, 'obj_conf': confidence,
          'attr_id': i.objects, 'attr_conf': confidence, 'boxes': i.boxes,
          'img_w': i.width, 'img_h': i.height}


def write_lmdb(path: pathlib.Path, values: dict[bytes, bytes]) -> pathlib.Path:
  """Writes an LMDB folder."""
  with lmdb.open(str(path), map_size=2**24) as environment:
    with environment.begin(write=True) as transaction:
      for key, value in values.items():
        transaction.put(key, value)
  return path


def _pickles(folder: pathlib.Path, values: dict[str, dict],
             protocol: int = 4) -> pathlib.Path:
  keys = [name.encode() for name in values]
  return write_lmdb(folder / 'a.lmdb', {
      **{name.encode(): pickle.dumps(value, protocol=protocol)
         for name, value in values.items()}, b'keys': pickle.dumps(keys)})


def volta_lmdb(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  return _pickles(folder, {
      i.name: _volta(i) | {'img_id': i.name} for i in images})


def volta_lmdb_base64(folder: pathlib.Path,
                      images: Sequence[Image]) -> pathlib.Path:
  """From npy: base64, with rows of padding after `num_boxes`."""
  return _pickles(folder, {i.name: {
      'feature_path': i.name, 'features': _base64(padded(i.features, 9)),
      'boxes': _base64(padded(i.boxes, 9)), 'img_h': i.height,
      'img_w': i.width, 'num_boxes': len(i.boxes),
      'objects': padded(i.objects, 9), 'cls_prob': padded(i.scores, 9)}
                           for i in images}, protocol=2)


def volta_lmdb_tensorpack(folder: pathlib.Path,
                          images: Sequence[Image]) -> pathlib.Path:
  """What tensorpack's LMDBSerializer writes: msgpack, keys in sequence."""
  keys = [b'%08d' % n for n in range(len(images))]
  values = {key: _msgpack(_volta(i) | {'img_id': i.name})
            for key, i in zip(keys, images, strict=True)}
  return write_lmdb(folder / 'a.lmdb', values | {
      b'__keys__': msgpack.packb(keys)})


def _msgpack(value: dict) -> bytes:
  """Returns what msgpack-numpy writes."""

  def encode(array):
    return {b'nd': True, b'type': array.dtype.str, b'kind': b'',
            b'shape': array.shape, b'data': array.tobytes()}

  return msgpack.packb(value, default=encode)


def _mmf(i: Image, rows: int) -> dict:
  return {'bbox': padded(i.boxes, rows), 'num_boxes': len(i.boxes),
          'objects': padded(i.objects, rows),
          'cls_prob': padded(i.scores, rows), 'image_width': i.width,
          'image_height': i.height}


def mmf_lmdb(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  return _pickles(folder, {
      i.name: _mmf(i, 7) | {'feature_path': i.name,
                            'features': padded(i.features, 7)}
      for i in images}, protocol=5)


def mmf_npy(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  (folder / 'npy').mkdir()
  for i in images:
    np.save(folder / 'npy' / f'{i.name}.npy', padded(i.features, 7))
    np.save(folder / 'npy' / f'{i.name}_info.npy', _mmf(i, 7))
  return folder / 'npy'


def mmt_pt(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  (folder / 'pt').mkdir()
  for i in images:
    arrays = {'features': padded(i.features, 7), 'boxes': padded(i.boxes, 7)}
    torch_files.write_zip(
        folder / 'pt' / f'{i.name}.pt',
        {name: _tensor(str(n), array)
         for n, (name, array) in enumerate(arrays.items())} | {
             'num_boxes': len(i.boxes), 'objects': padded(i.objects, 7),
             'cls_prob': padded(i.scores, 7), 'img_w': i.width,
             'img_h': i.height},
        {str(n): array.tobytes() for n, array in enumerate(arrays.values())})
  return folder / 'pt'


def _tensor(key: str, array: np.ndarray):
  storage = torch_files.Storage('FloatStorage', key, array.size)
  return torch_files.tensor(storage, 0, array.shape, (array.shape[1], 1))


def milvlg_npz(folder: pathlib.Path, images: Sequence[Image]) -> pathlib.Path:
  (folder / 'npz').mkdir()
  for i in images:
    np.savez(folder / 'npz' / f'{i.name}.npz', x=i.features, bbox=i.boxes,
             num_bbox=len(i.boxes), image_h=i.height, image_w=i.width)
  return folder / 'npz'


def oscar_pt(folder: pathlib.Path, images: Sequence[Image],
             write: Callable = torch_files.write_zip) -> pathlib.Path:
  arrays = {str(n): np.concatenate(
      [i.features, _norm_bb(i)], axis=1).astype(np.float32)
            for n, i in enumerate(images)}
  as_storage = ((lambda a: a.tobytes()) if write is torch_files.write_zip
                else (lambda a: a.reshape(-1)))
  write(folder / 'a.pt',
        {i.name: _tensor(str(n), arrays[str(n)])
         for n, i in enumerate(images)},
        {key: as_storage(array) for key, array in arrays.items()})
  return folder / 'a.pt'


def oscar_pt_legacy(folder: pathlib.Path,
                    images: Sequence[Image]) -> pathlib.Path:
  return oscar_pt(folder, images, torch_files.write_legacy)


def _norm_bb(i: Image) -> np.ndarray:
  """Returns [R, 6] in 0–1: x1, y1, x2, y2, w, h."""
  x1, y1, x2, y2 = (i.boxes / ([i.width, i.height] * 2)).T
  return np.stack([x1, y1, x2, y2, x2 - x1, y2 - y1], axis=1)


def m3p_h5(folder: pathlib.Path, images: Sequence[Image], *,
           height_first: bool = True, old: bool = False,
           scores: bool = False) -> pathlib.Path:
  """Writes M3P's file; classes count from 1, as the release reads them."""
  with h5py.File(folder / 'a.h5', 'w') as file:
    file['image_id'] = np.array([i.name.encode() for i in images])
    file['wh'] = [(i.height, i.width) if height_first else (i.width, i.height)
                  for i in images]
    file['num_boxes'] = [len(i.boxes) for i in images]
    file['boxes' if old else 'bbox'] = [padded(i.boxes, 10) for i in images]
    file['features'] = np.stack([padded(i.features, 10) for i in images])
    if scores:
      file['distribution'] = [padded(i.scores, 10) for i in images]
    else:
      file['object' if old else 'objects'] = [
          padded(i.objects + 1, 10) for i in images]
  return folder / 'a.h5'


def uniter_lmdb(folder: pathlib.Path, images: Sequence[Image], *,
                compressed: bool = False) -> pathlib.Path:
  """Writes msgpack-numpy, or .npz; the first soft label is the background."""
  values = {}
  for i in images:
    arrays = {
        'features': i.features.astype(np.float16),
        'norm_bb': _norm_bb(i).astype(np.float16),
        'conf': i.scores.max(axis=1).astype(np.float16),
        'soft_labels': np.concatenate(
            [np.ones((len(i.boxes), 1)), i.scores], 1).astype(np.float16)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    values[f'{i.name}.npz'.encode()] = (
        file.getvalue() if compressed else _msgpack(arrays))
  folder = folder / ('feat_compressed' if compressed else 'feat')
  return write_lmdb(folder, values | {b'__keys__': b'["a"]'})


def uniter_lmdb_compressed(folder, images) -> pathlib.Path:
  return uniter_lmdb(folder, images, compressed=True)


def m3p_h5_old(folder, images) -> pathlib.Path:
  return m3p_h5(folder, images, old=True)


def m3p_h5_width_first(folder, images) -> pathlib.Path:
  return m3p_h5(folder, images, height_first=False)


def m3p_h5_scores(folder, images) -> pathlib.Path:
  return m3p_h5(folder, images, scores=True)


VARIANTS: dict[str, Callable] = {
    function.__name__: function for function in (
        butd_tsv, lxmert_tsv, volta_h5, volta_lmdb, volta_lmdb_base64,
        volta_lmdb_tensorpack, mmf_npy, mmf_lmdb, mmt_pt, milvlg_npz, oscar_pt,
        oscar_pt_legacy, m3p_h5, m3p_h5_old, m3p_h5_width_first, m3p_h5_scores,
        uniter_lmdb, uniter_lmdb_compressed)}


def read(name: str, path: pathlib.Path) -> dict[str, regions.RegionSet]:
  """Returns {image: its regions}; what cannot be used is an error."""
  with contextlib.closing(source.RegionSource(name, path)) as found:
    read = {}
    for image_id, place in found.index.places.items():
      try:
        read[image_id] = found.load(place)
      except errors.RowError as error:
        raise errors.UserError(f'{found.where(place)}: {error}') from error
    return read


def format_of(variant: str) -> str:
  """Returns the format that a variant is written in."""
  return '_'.join(variant.split('_')[:2])
