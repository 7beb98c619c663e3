"""Bytes that a compiled step moves, with every loop counted as often as it
runs.

`compiled.cost_analysis()` counts the body of a loop once. This reads the
compiled program's text instead, by the same rules: an operation reads its
operands and writes its results; a slice of an array, and an update in place,
move the slice alone. Arrays that the compiler placed in a core's own memory,
S(1) in the text, move nothing between chip and HBM.
"""

from collections.abc import Mapping
import re
from typing import NamedTuple

from absl import logging

_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2,
          'bf16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8,
          'f64': 8, 'c64': 8}
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\](\{[^}]*\})?')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$')
_INSTRUCTION = re.compile(
    r'^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast',
         'after-all', 'partition-id', 'replica-id', 'iota', 'opt-barrier',
         'optimization-barrier', 'add-dependency', 'domain')
_SLICES = ('dynamic-slice', 'slice', 'gather')
# While one is under way, the fusions computed meanwhile carry its arrays
# through; they are moved once, which is told of the fusion that ends it.
_COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all',
                'collective-permute')
_ENDS_COLLECTIVE = 'async-collective-done'


class _Instruction(NamedTuple):
  """One line of a program."""
  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  text: str
  is_root: bool


class Cost(NamedTuple):
  """What one run of the program moves on one device.

  Attributes:
    hbm_bytes: between the chip's memory and its cores.
    bytes: by the rules of the compiler's own analysis: core memory counts.
  """
  hbm_bytes: float
  bytes: float


def count(text: str) -> Cost:
  """Returns the cost of a compiled program, `compiled.as_text()`."""
  computations, entry = _parse(text)
  return Cost(*(_Counter(computations, counts_core).of(entry)
                for counts_core in (False, True)))


def _parse(text):
  """Returns ({name: {instruction name: instruction}}, name of the entry)."""
  computations: dict[str, dict[str, _Instruction]] = {}
  entry, current = '', {}
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header:
      current = computations[header[2]] = {}
      entry = header[2] if header[1] else entry
      continue
    found = _INSTRUCTION.match(line)
    if found:
      root, name, shape, opcode, rest = found.groups()
      operands = tuple(re.findall(r'%([\w.\-]+)', _arguments(rest)))
      current[name] = _Instruction(
          name, shape, opcode, operands, rest, bool(root))
  return computations, entry


def _arguments(rest: str) -> str:
  """Returns the part of an instruction before its closing parenthesis."""
  depth = 1
  for index, character in enumerate(rest):
    depth += (character == '(') - (character == ')')
    if not depth:
      return rest[:index]
  return rest


class _Counter:
  """Adds up one kind of bytes over a program."""

  def __init__(self, computations: Mapping[str, Mapping[str, _Instruction]],
               counts_core: bool):
    self._computations, self._counts_core = computations, counts_core
    self._known: dict[str, float] = {}

  def of(self, name: str) -> float:
    """Returns the bytes of one run of a computation."""
    if name not in self._known:
      computation = self._computations[name]
      self._known[name] = sum(
          self._instruction(instruction, computation)
          for instruction in computation.values())
    return self._known[name]

  def _size(self, shape: str) -> float:
    total = 0
    for dtype, dims, layout in _ARRAY.findall(shape):
      if self._counts_core or not re.search(r'S\([1-9]', layout):
        size = _BYTES.get(dtype, 0)
        for dim in filter(None, dims.split(',')):
          size *= int(dim)
        total += size
    return total

  def _instruction(self, instruction, computation) -> float:
    opcode, text = instruction.opcode, instruction.text
    if opcode in _FREE or opcode.endswith('-done'):
      return 0
    if opcode == 'while':
      turns = re.search(r'"known_trip_count":\{"n":"(\d+)"', text)
      if not turns:
        logging.warning('a loop of the compiled step has no known number of '
                        'turns and is counted once: %s', instruction.name)
      return (int(turns[1]) if turns else 1) * self.of(_called(text, 'body'))
    if opcode == 'conditional':
      branches = re.search(r'branch_computations=\{([^}]*)\}', text)
      names = (re.findall(r'%([\w.\-]+)', branches[1]) if branches else
               [_called(text, f'{kind}_computation')
                for kind in ('true', 'false')])
      return max(map(self.of, names))
    if opcode == 'call':
      return self.of(_called(text, 'to_apply'))
    if opcode == 'async-start':
      return self.of(_called(text, 'calls'))
    operands = [computation[name] for name in instruction.operands
                if name in computation]
    if opcode == 'fusion':
      return self._fusion(instruction, operands)
    if opcode in _SLICES:
      return 2 * self._size(instruction.shape)
    if opcode == 'dynamic-update-slice':
      return 2 * self._size(operands[1].shape)
    if opcode in ('copy-start', 'slice-start'):
      # The result holds destination, source and a semaphore.
      arrays = [match[0] for match in _ARRAY.finditer(instruction.shape)]
      moved = _Counter({}, True)._size(arrays[0])
      ends = (arrays[0], operands[0].shape)
      return sum(moved for end in ends if self._size(end))
    read = sum(self._size(operand.shape) for operand in operands)
    if opcode.endswith('-start'):
      # The result holds the operands as well.
      return max(self._size(instruction.shape), read)
    return read + self._size(instruction.shape)

  def _fusion(self, instruction, operands) -> float:
    body = self._computations[_called(instruction.text, 'calls')]
    parameters = {int(_arguments(inner.text)): inner
                  for inner in body.values() if inner.opcode == 'parameter'}
    total = 0.0
    if instruction.name.startswith(_ENDS_COLLECTIVE):
      return self._size(instruction.shape) + sum(
          self._size(operand.shape) for operand in operands
          if operand.shape != instruction.shape)
    for index, operand in enumerate(operands):
      full = self._size(operand.shape)
      if full and index in parameters:
        full = min(full, self._read(parameters[index], body))
      total += full
    root = next(inner for inner in body.values() if inner.is_root)
    return total + self._written(root, body, instruction.shape)

  def _read(self, array, body) -> float:
    """Returns the bytes that a fusion reads of one of its parameters."""
    total = 0.0
    for user in body.values():
      if array.name not in user.operands:
        continue
      if user.opcode == 'bitcast':
        total += self._read(user, body)
      elif user.opcode in _SLICES and user.operands[0] == array.name:
        total += _Counter({}, True)._size(user.shape)
      elif user.opcode == 'tuple' or user.opcode in _COLLECTIVES:
        continue
      elif not (user.opcode == 'dynamic-update-slice'
                and user.operands[0] == array.name):
        return float('inf')
    return total

  def _written(self, root, body, shape) -> float:
    """Returns the bytes of a fusion's result: of an update, its slice."""
    if root.opcode == 'tuple':
      parts = [match[0] for match in _ARRAY.finditer(shape)]
      return sum(self._written(body[name], body, part) for name, part in zip(
          root.operands, parts, strict=True))
    if root.opcode == 'parameter' or root.opcode in _COLLECTIVES:
      return 0
    if root.opcode == 'bitcast':
      return self._written(body[root.operands[0]], body, shape)
    size = self._size(shape)
    if root.opcode == 'dynamic-update-slice' and size:
      update = body[root.operands[1]]
      return min(size, _Counter({}, True)._size(update.shape))
    return size


def _called(text: str, kind: str) -> str:
  found = re.search(rf'{kind}=%?([\w.\-]+)', text)
  if not found:
    raise ValueError(f'no {kind} in the compiled program: {text[:200]}')
  return found[1]
