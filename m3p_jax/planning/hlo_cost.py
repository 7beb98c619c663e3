"""What a step computes and moves, every loop counted as often as it runs.

`compiled.cost_analysis()` counts the body of a loop once. `count` reads the
compiled program's text instead, by the same rules: an operation reads its
operands and writes its results; a slice of an array, and an update in place,
move the slice alone. Arrays that the compiler placed in a core's own memory,
S(1) in the text, move nothing between chip and HBM. `traced_flops` counts what
JAX traced, before any compiler: the two know nothing of each other.
"""

from collections.abc import Mapping
import math
import re
from typing import Any, NamedTuple

from absl import logging
from jax.extend import core

_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2,
          'bf16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8,
          'f64': 8, 'c64': 8}
ARRAY = re.compile(r'(\w+)\[([\d,]*)\](\{[^}]*\})?')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$')
_LINE = re.compile(
    r'^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast',
         'after-all', 'partition-id', 'replica-id', 'iota', 'opt-barrier',
         'optimization-barrier', 'add-dependency', 'domain')
_SLICES = ('dynamic-slice', 'slice', 'gather')
# While one is under way, the fusions computed meanwhile carry its arrays
# through; they are moved once, which the fusion that ends it counts.
COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all',
               'collective-permute')
STARTS, ENDS = 'async-collective-start', 'async-collective-done'


class Cost(NamedTuple):
  """One run of a program on one device.

  Attributes:
    hbm_bytes: moved between the chip's memory and its cores.
    bytes: by the rules of the compiler's own analysis: core memory counts.
    flops: of its matrix products.
  """
  hbm_bytes: float
  bytes: float
  flops: float


class Instruction(NamedTuple):
  """One line of a program.

  Attributes:
    name: unique in the program.
    shape: of the result, as it is written.
    opcode: what is done.
    operands: names of instructions of the same computation.
    text: all that follows the opcode.
    is_root: whether its result is its computation's.
  """
  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  text: str
  is_root: bool


Computation = Mapping[str, Instruction]
Program = Mapping[str, Computation]


def count(text: str) -> Cost:
  """Returns the cost of a compiled program, `compiled.as_text()`."""
  program, entry = parse(text)
  return Cost(Bytes(program).of(entry),
              Bytes(program, counts_core=True).of(entry),
              Flops(program).of(entry))


def parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
  """Returns ({name: {instruction name: instruction}}, name of the entry)."""
  program: dict[str, dict[str, Instruction]] = {}
  entry, current = '', {}
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header:
      current = program[header[2]] = {}
      entry = header[2] if header[1] else entry
      continue
    found = _LINE.match(line)
    if found:
      root, name, shape, opcode, rest = found.groups()
      operands = tuple(re.findall(r'%([\w.\-]+)', _arguments(rest)))
      current[name] = Instruction(
          name, shape, opcode, operands, rest, bool(root))
  return program, entry


def turns(loop: Instruction, program: Program) -> int:
  """Returns how often the body of a `while` runs.

  The compiler says so, or the one number that the loop's condition compares
  its counter with; counters start at 0.
  """
  found = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text)
  if found:
    return int(found[1])
  limits = _integers(called(loop.text, 'condition'), program)
  if len(limits) != 1:
    logging.warning('a loop of the compiled step has no known number of turns '
                    'and is counted once: %s', loop.name)
    return 1
  return -(-limits.pop() // _rise(loop, program))


def traced_flops(jaxpr: Any, *, devices: int = 1) -> float:
  """Returns 2 · multiplications of the matrix products that JAX traced.

  Args:
    jaxpr: of `jax.make_jaxpr` or of a trace.
    devices: of the mesh; a `shard_map` runs on each.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  total = 0.0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      left = equation.invars[0].aval.shape
      total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(
          left[axis] for axis in contracted)
      continue
    inner = 0.0
    if name == 'cond':
      inner = max(traced_flops(branch, devices=devices)
                  for branch in params['branches'])
    elif name == 'while':
      raise NotImplementedError(
          'a loop without a fixed number of turns has no fixed cost')
    else:
      for value in params.values():
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
          inner += traced_flops(value, devices=devices)
    times = {'scan': params.get('length'), 'shard_map': devices}.get(name, 1)
    total += times * inner
  return total


def runs(instruction: Instruction, program: Program) -> tuple[int, list[str]]:
  """Returns (how often, computations of which one runs); of others (1, [])."""
  text, opcode = instruction.text, instruction.opcode
  if opcode == 'while':
    return turns(instruction, program), [called(text, 'body')]
  if opcode == 'conditional':
    branches = re.search(r'branch_computations=\{([^}]*)\}', text)
    return 1, (re.findall(r'%([\w.\-]+)', branches[1]) if branches else
               [called(text, f'{kind}_computation')
                for kind in ('true', 'false')])
  if opcode in ('call', 'async-start'):
    return 1, [called(text, 'to_apply' if opcode == 'call' else 'calls')]
  return 1, []


class _Count:
  """Adds up a number over a program; of a conditional's branches the largest.
  """

  def __init__(self, program: Program):
    self._program = program
    self._known: dict[str, float] = {}

  def of(self, name: str) -> float:
    """Returns the number of one run of a computation."""
    if name not in self._known:
      computation = self._program[name]
      self._known[name] = sum(
          self.of_instruction(instruction, computation)
          for instruction in computation.values())
    return self._known[name]

  def of_instruction(self, instruction: Instruction,
                     computation: Computation) -> float:
    """Returns the number of one run of an instruction."""
    times, names = runs(instruction, self._program)
    if names:
      return times * max(map(self.of, names))
    return self._own(instruction, computation)

  def _own(self, instruction, computation) -> float:
    raise NotImplementedError


class Flops(_Count):
  """2 · multiplications of the matrix products."""

  def _own(self, instruction, computation) -> float:
    if instruction.opcode in ('convolution', 'dot'):
      return _product_flops(instruction, computation)
    if instruction.opcode == 'fusion':
      return self.of(called(instruction.text, 'calls'))
    return 0


class Bytes(_Count):
  """Bytes read and written."""

  def __init__(self, program: Program, *, counts_core: bool = False):
    super().__init__(program)
    self._counts_core = counts_core

  def _size(self, shape: str) -> float:
    return size(shape, counts_core=self._counts_core)

  def _own(self, instruction, computation) -> float:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith('-done'):
      return 0
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
      arrays = [match[0] for match in ARRAY.finditer(instruction.shape)]
      target = arrays[opcode == 'slice-start']
      ends = [end for end in (target, operands[0].shape) if self._size(end)]
      return len(ends) * size(target)
    read = sum(self._size(operand.shape) for operand in operands)
    if opcode.endswith('-start') or opcode in ('send', 'recv'):
      # The result holds the operands as well.
      return max(self._size(instruction.shape), read)
    return read + self._size(instruction.shape)

  def _fusion(self, instruction, operands) -> float:
    if instruction.name.startswith(ENDS):
      return self._size(instruction.shape) + sum(
          self._size(operand.shape) for operand in operands
          if operand.shape != instruction.shape)
    body = self._program[called(instruction.text, 'calls')]
    parameters = _parameters(body)
    total = 0.0
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
        total += size(user.shape)
      elif user.opcode == 'fusion':
        inner = self._program[called(user.text, 'calls')]
        for index, name in enumerate(user.operands):
          if name == array.name:
            total += self._read(_parameters(inner)[index], inner)
      elif user.opcode == 'tuple' or user.opcode in COLLECTIVES:
        continue
      elif not (user.opcode == 'dynamic-update-slice'
                and user.operands[0] == array.name):
        return math.inf
    return total

  def _written(self, root, body, shape) -> float:
    """Returns the bytes of a fusion's result: of an update, its slice."""
    if root.opcode == 'tuple':
      parts = [match[0] for match in ARRAY.finditer(shape)]
      return sum(self._written(body[name], body, part) for name, part in zip(
          root.operands, parts, strict=True))
    if root.opcode == 'parameter' or root.opcode in COLLECTIVES:
      return 0
    if root.opcode == 'bitcast':
      return self._written(body[root.operands[0]], body, shape)
    whole = self._size(shape)
    if root.opcode == 'dynamic-update-slice' and whole:
      return min(whole, size(body[root.operands[1]].shape))
    return whole


def size(shape: str, *, counts_core: bool = True) -> float:
  """Returns the bytes of all arrays of a shape as it is written."""
  total = 0
  for dtype, dims, layout in ARRAY.findall(shape):
    if counts_core or not re.search(r'S\([1-9]', layout):
      total += _BYTES.get(dtype, 0) * math.prod(
          int(dim) for dim in filter(None, dims.split(',')))
  return total


def _product_flops(instruction: Instruction,
                   computation: Computation) -> float:
  text = instruction.text
  shapes = [_dims(computation[name].shape) for name in instruction.operands]
  multiplied = math.prod(_dims(instruction.shape))
  if instruction.opcode == 'dot':
    found = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', text)
    axes = [int(axis) for axis in found[1].split(',') if axis] if found else []
    return 2.0 * multiplied * math.prod(shapes[0][axis] for axis in axes)
  # A TPU's compiler writes products as convolutions. Of a window's axis either
  # every element counts (a contracted axis), or one does (an axis of
  # independent products, which padding or dilation keeps apart).
  labels = re.search(r'dim_labels=\w+_(\w+)->', text)
  if not labels:
    raise ValueError(f'a convolution without labels: {text[:200]}')
  multiplied *= shapes[1][labels[1].index('i')]
  window = re.search(r'window=\{([^}]*)\}', text)
  if window:
    parts = dict(re.findall(r'(\w+)=(\S+)', window[1]))
    sizes = [int(one) for one in parts['size'].split('x')]
    pads = parts.get('pad', 'x'.join(['0_0'] * len(sizes))).split('x')
    dilations = parts.get('lhs_dilate', 'x'.join('1' * len(sizes))).split('x')
    for width, pad, dilation in zip(sizes, pads, dilations, strict=True):
      if pad == '0_0' and dilation == '1':
        multiplied *= width
  return 2.0 * multiplied


def _dims(shape: str) -> list[int]:
  found = ARRAY.match(shape)
  if not found:
    raise ValueError(f'no array: {shape}')
  return [int(dim) for dim in found[2].split(',') if dim]


def _arguments(rest: str) -> str:
  """Returns the part of an instruction before its closing parenthesis."""
  depth = 1
  for index, character in enumerate(rest):
    depth += (character == '(') - (character == ')')
    if not depth:
      return rest[:index]
  return rest


def called(text: str, kind: str) -> str:
  """Returns the computation that an instruction calls as `kind`."""
  found = re.search(rf'{kind}=%?([\w.\-]+)', text)
  if not found:
    raise ValueError(f'no {kind} in the compiled program: {text[:200]}')
  return found[1]


def _parameters(body: Computation) -> dict[int, Instruction]:
  """Returns {index: instruction} of a computation's parameters."""
  return {int(_arguments(inner.text)): inner
          for inner in body.values() if inner.opcode == 'parameter'}


def _rise(loop: Instruction, program: Program) -> int:
  """Returns by how much the counter of a loop rises in a turn."""
  condition = program[called(loop.text, 'condition')]
  body = program[called(loop.text, 'body')]
  indices = [re.search(r'index=(\d+)', instruction.text)
             for instruction in condition.values()
             if instruction.opcode == 'get-tuple-element']
  root = next(inner for inner in body.values() if inner.is_root)
  if len(indices) == 1 and indices[0] and root.opcode == 'tuple':
    counter = body[root.operands[int(indices[0][1])]]
    for name in counter.operands if counter.opcode == 'add' else ():
      found = re.match(r'(\d+)\)', body[name].text)
      if body[name].opcode == 'constant' and found:
        return int(found[1])
  return 1


def _integers(name: str, program: Program) -> set[int]:
  """Returns the whole numbers in a computation and what it calls."""
  numbers = set()
  for instruction in program[name].values():
    if instruction.opcode == 'constant':
      numbers |= {int(n) for n in re.findall(r'^(\d+)\)', instruction.text)}
    elif instruction.opcode == 'fusion':
      numbers |= _integers(called(instruction.text, 'calls'), program)
  return numbers
