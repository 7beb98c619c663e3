"""Answers to those who ask at the same time, a few worked on at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent import futures
import contextlib
import json
from typing import Any, TypeVar

from absl import logging
import fastapi
from fastapi import responses

from input_pipeline import errors
from m3p_jax import batch as batch_lib
from m3p_jax.serve import finder as finder_lib
from m3p_jax.serve import pictures as pictures_lib

T = TypeVar('T')
# Questions that are worked on at the same time, and that may wait. What takes
# long has a place of its own, one part after the other: the dual encoder
# answers beside any number of joint queries, and two of these at once gain
# nothing.
_AT_ONCE, _LONG_AT_ONCE = 8, 1
# Seconds that a part of a long answer lets short ones go first, at most; and
# after the last of these, for whoever asks one after the other.
_PATIENCE, _PAUSE = 0.25, 0.05
_MOST_WAITING = 200
# What a refused sender may still send, so that it reads the answer.
_MAX_DRAINED_BYTES = 2**28


class Answers:
  """Works on questions in threads of its own.

  Whoever stops the server does not wait for them.
  """

  def __init__(self):
    self._short = futures.ThreadPoolExecutor(_AT_ONCE)
    self._long = futures.ThreadPoolExecutor(_LONG_AT_ONCE)
    self._places = asyncio.Semaphore(_LONG_AT_ONCE)
    self._waiting = self._num_short = 0
    self._last_short = -1.0  # When one ended.

  async def work(self, function: Callable[..., T], *args: Any,
                 is_long: bool = True) -> T:
    """Returns function(*args), worked on beside others."""
    loop = asyncio.get_running_loop()
    if is_long:
      # They share the device: a long part would take it for as long as it is.
      # Only who has the place waits, so that one part follows each wait.
      async with self._places:
        until = loop.time() + _PATIENCE
        while loop.time() < until and (
            self._num_short or loop.time() < self._last_short + _PAUSE):
          await asyncio.sleep(0.002)
        return await loop.run_in_executor(self._long, function, *args)
    self._num_short += 1
    try:
      return await loop.run_in_executor(self._short, function, *args)
    finally:
      self._num_short -= 1
      self._last_short = loop.time()

  async def picture(self, request: fastapi.Request,
                    finder: finder_lib.Finder) -> batch_lib.Regions:
    """Returns the regions of the picture that is sent.

    Raises:
      Refused: no picture that can be used.
    """
    return await self.work(
        pictures_lib.regions, await body(request, pictures_lib.MAX_BYTES),
        finder.searcher.read)

  async def last(self, parts: Iterator[T], *, is_long: bool) -> T:
    """Returns the last part of an answer; see `stream`."""
    found = None
    async for part in self._parts(parts, is_long=is_long):
      found = part
    return found

  def stream(self, parts: Iterator[Any], *,
             is_long: bool) -> responses.Response:
    """Returns one line of JSON for each part; ends where nobody reads it.

    What comes after the first part of a long answer takes long.
    """
    self._check_room()
    return responses.StreamingResponse(
        self._lines(parts, is_long=is_long),
        media_type='application/x-ndjson',
        headers={'cache-control': 'no-store'})

  async def _parts(self, parts: Iterator[T], *,
                   is_long: bool) -> AsyncGenerator[T, None]:
    is_begun = False
    with self._place():
      # No thread is kept while a part is sent: who reads slowly keeps nobody.
      while (part := await self.work(
          next, parts, None, is_long=is_long and is_begun)) is not None:
        yield part
        is_begun = True

  async def _lines(self, parts: Iterator[Any], *,
                   is_long: bool) -> AsyncIterator[str]:
    async with contextlib.aclosing(self._parts(
        parts, is_long=is_long)) as found:
      try:
        async for part in found:
          yield json.dumps(part) + '\n'
      except errors.UserError as error:  # As of records that have gone.
        logging.warning('%s', error)
        yield json.dumps({'error': str(error)}) + '\n'

  def _check_room(self) -> None:
    if self._waiting >= _MOST_WAITING:
      raise fastapi.HTTPException(503, 'Too many ask at once: try again.')

  @contextlib.contextmanager
  def _place(self) -> Iterator[None]:
    self._check_room()
    self._waiting += 1
    try:
      yield
    finally:
      self._waiting -= 1


async def body(request: fastapi.Request, limit: int) -> bytes | None:
  """Returns what was sent, None where it is longer than allowed.

  It is read on and forgotten then: who is still sending reads no answer.
  """
  content, size = bytearray(), 0
  while size <= _MAX_DRAINED_BYTES:
    message = await request.receive()
    part = message.get('body', b'')
    size += len(part)
    if size <= limit:
      content += part
    if not message.get('more_body'):
      break
  return bytes(content) if size <= limit else None
