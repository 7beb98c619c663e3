"""The text of a compiled program, `compiled.as_text()`, in parts."""

from collections.abc import Mapping
import re
from typing import NamedTuple

from absl import logging

BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2,
          'bf16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8,
          'f64': 8, 'c64': 8}
ARRAY = re.compile(r'(\w+)\[([\d,]*)\](\{[^}]*\})?')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$')
_LINE = re.compile(
    r'^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')


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


def parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
  """Returns ({name: {instruction name: instruction}}, name of the entry)."""
  computations: dict[str, dict[str, Instruction]] = {}
  entry, current = '', {}
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header:
      current = computations[header[2]] = {}
      entry = header[2] if header[1] else entry
      continue
    found = _LINE.match(line)
    if found:
      root, name, shape, opcode, rest = found.groups()
      operands = tuple(re.findall(r'%([\w.\-]+)', arguments(rest)))
      current[name] = Instruction(
          name, shape, opcode, operands, rest, bool(root))
  return computations, entry


def arguments(rest: str) -> str:
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


def turns(loop: Instruction,
          program: Mapping[str, Mapping[str, Instruction]]) -> int:
  """Returns how often the body of a `while` runs.

  Told by the compiler, or by the one number that the loop's condition
  compares its counter with; counters start at 0.

  Args:
    loop: the instruction.
    program: all computations, of `parse`.
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


def _rise(loop, program) -> int:
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


def _integers(name, program) -> set[int]:
  """Returns the whole numbers in a computation and what it calls."""
  numbers = set()
  for instruction in program[name].values():
    if instruction.opcode == 'constant':
      numbers |= {int(n) for n in re.findall(r'^(\d+)\)', instruction.text)}
    elif instruction.opcode == 'fusion':
      numbers |= _integers(called(instruction.text, 'calls'), program)
  return numbers
