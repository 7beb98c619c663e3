"""What the reading process and its parent say to each other over a socket.

A message is a JSON object and arrays after it, as plain bytes: the parent
believes nothing that could run, even from a process that a file has hijacked.
"""

import json
import math
import socket
import struct
from typing import Any

import numpy as np

from input_pipeline import errors
from input_pipeline.region_files import contract

_LENGTH = struct.Struct('<Q')
_ARRAYS = ('boxes_R4', 'features_RF', 'class_ids_R')


class Closed(errors.UserError):
  """The other side has gone."""


def send(connection: socket.socket, message: dict[str, Any],
         arrays: tuple[np.ndarray, ...] = ()) -> None:
  """Sends a message with arrays of numbers."""
  arrays = tuple(np.ascontiguousarray(array) for array in arrays)
  head = json.dumps(message | {'arrays': [
      [array.dtype.str, array.shape] for array in arrays]}).encode()
  connection.sendall(_LENGTH.pack(len(head)) + head)
  for array in arrays:
    connection.sendall(array.reshape(-1).view(np.uint8).data)


def receive(connection: socket.socket) -> tuple[dict[str, Any],
                                                list[np.ndarray]]:
  """Returns a message and its arrays.

  Raises:
    Closed: the other side has gone, or sends what is no message.
  """
  (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
  message = json.loads(_read(connection, length))
  arrays = []
  for name, shape in message.pop('arrays'):
    dtype = np.dtype(name)
    size = math.prod(shape) * dtype.itemsize
    if dtype.kind not in 'biuf':
      raise Closed(f'an array of {dtype}')
    arrays.append(np.frombuffer(_read(connection, size), dtype).reshape(shape))
  return message, arrays


def _read(connection: socket.socket, size: int) -> bytearray:
  if not 0 <= size <= 4 * contract.MAX_BYTES:
    raise Closed(f'a message of {size} bytes')
  data = bytearray(size)
  view = memoryview(data)
  while view:
    count = connection.recv_into(view)
    if not count:
      raise Closed('the connection is closed')
    view = view[count:]
  return data


def pack(regions: contract.ImageRegions) -> tuple[dict[str, Any], tuple]:
  """Returns an image as `send` takes it."""
  return ({'image_id': regions.image_id, 'height': regions.height,
           'width': regions.width},
          tuple(getattr(regions, name) for name in _ARRAYS))


def unpack(message: dict[str, Any], arrays: list[np.ndarray],
           ) -> contract.ImageRegions:
  """Returns the image of a message."""
  return contract.ImageRegions(
      message['image_id'], message['height'], message['width'],
      **dict(zip(_ARRAYS, arrays, strict=True)))
