"""What a compiled step computes and moves, with every loop counted as often as
it runs.

`compiled.cost_analysis()` counts the body of a loop once. This reads the
compiled program's text instead, by the same rules: an operation reads its
operands and writes its results; a slice of an array, and an update in place,
move the slice alone. Arrays that the compiler placed in a core's own memory,
S(1) in the text, move nothing between chip and HBM.
"""

from collections.abc import Mapping
import re
from typing import NamedTuple

from m3p_jax.planning import compiled_flops
from m3p_jax.planning import compiled_program as program

_FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast',
         'after-all', 'partition-id', 'replica-id', 'iota', 'opt-barrier',
         'optimization-barrier', 'add-dependency', 'domain')
_SLICES = ('dynamic-slice', 'slice', 'gather')
# While one is under way, the fusions computed meanwhile carry its arrays
# through; they are moved once, which is told of the fusion that ends it.
_COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all',
                'collective-permute')
_ENDS_COLLECTIVE = 'async-collective-done'


class Cost(NamedTuple):
  """What one run of the program moves on one device.

  Attributes:
    hbm_bytes: between the chip's memory and its cores.
    flops: of its matrix products.
    bytes: by the rules of the compiler's own analysis: core memory counts.
  """
  hbm_bytes: float
  bytes: float
  flops: float


def count(text: str) -> Cost:
  """Returns the cost of a compiled program, `compiled.as_text()`."""
  computations, entry = program.parse(text)
  hbm_bytes, all_bytes = (_Counter(computations, counts_core).of(entry)
                          for counts_core in (False, True))
  return Cost(hbm_bytes, all_bytes, compiled_flops.count(computations, entry))


class _Counter:
  """Adds up one kind of bytes over a program."""

  def __init__(
      self, computations: Mapping[str, Mapping[str, program.Instruction]],
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
    for dtype, dims, layout in program.ARRAY.findall(shape):
      if self._counts_core or not re.search(r'S\([1-9]', layout):
        size = program.BYTES.get(dtype, 0)
        for dim in filter(None, dims.split(',')):
          size *= int(dim)
        total += size
    return total

  def _instruction(self, instruction, computation) -> float:
    opcode, text = instruction.opcode, instruction.text
    if opcode in _FREE or opcode.endswith('-done'):
      return 0
    if opcode == 'while':
      return program.turns(instruction, self._computations) * self.of(
          program.called(text, 'body'))
    if opcode == 'conditional':
      branches = re.search(r'branch_computations=\{([^}]*)\}', text)
      names = (re.findall(r'%([\w.\-]+)', branches[1]) if branches else
               [program.called(text, f'{kind}_computation')
                for kind in ('true', 'false')])
      return max(map(self.of, names))
    if opcode == 'call':
      return self.of(program.called(text, 'to_apply'))
    if opcode == 'async-start':
      return self.of(program.called(text, 'calls'))
    operands = [computation[name] for name in instruction.operands
                if name in computation]
    if opcode == 'fusion':
      return self._fusion(instruction, operands)
    if opcode in _SLICES:
      return 2 * self._size(instruction.shape)
    if opcode == 'dynamic-update-slice':
      return 2 * self._size(operands[1].shape)
    if opcode in ('copy-start', 'slice-start'):
      # A copy's result begins with the destination, a slice's with the source.
      arrays = [match[0] for match in program.ARRAY.finditer(
          instruction.shape)]
      target = arrays[opcode == 'slice-start']
      moved = _Counter({}, True)._size(target)
      ends = (target, operands[0].shape)
      return sum(moved for end in ends if self._size(end))
    read = sum(self._size(operand.shape) for operand in operands)
    if opcode.endswith('-start'):
      # The result holds the operands as well.
      return max(self._size(instruction.shape), read)
    return read + self._size(instruction.shape)

  def _fusion(self, instruction, operands) -> float:
    body = self._computations[program.called(instruction.text, 'calls')]
    parameters = _parameters(body)
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
      elif user.opcode == 'fusion':
        inner = self._computations[program.called(user.text, 'calls')]
        for index, name in enumerate(user.operands):
          if name == array.name:
            total += self._read(_parameters(inner)[index], inner)
      elif user.opcode == 'tuple' or user.opcode in _COLLECTIVES:
        continue
      elif not (user.opcode == 'dynamic-update-slice'
                and user.operands[0] == array.name):
        return float('inf')
    return total

  def _written(self, root, body, shape) -> float:
    """Returns the bytes of a fusion's result: of an update, its slice."""
    if root.opcode == 'tuple':
      parts = [match[0] for match in program.ARRAY.finditer(shape)]
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


def _parameters(body):
  """Returns {index: instruction} of a computation's parameters."""
  return {int(program.arguments(inner.text)): inner
          for inner in body.values() if inner.opcode == 'parameter'}
