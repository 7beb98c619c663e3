"""Operations of the matrix products in a compiled program.

A TPU's compiler writes them as convolutions. Of a window's axis either every
element counts (a contracted axis), or one does (an axis of independent
products, which padding or dilation keeps apart).
"""

from collections.abc import Mapping
import functools
import math
import re

from m3p_jax.planning import compiled_program as program

_CALLS = {'while': 'body', 'fusion': 'calls', 'call': 'to_apply',
          'async-start': 'calls'}
Computation = Mapping[str, program.Instruction]


def count(computations: Mapping[str, Computation], entry: str) -> float:
  """Returns 2 · multiplications of one run, as often as each loop runs.

  Args:
    computations: of `compiled_program.parse`.
    entry: name of the outermost one.
  """

  @functools.cache
  def of(name: str) -> float:
    total = 0.0
    for instruction in computations[name].values():
      opcode, text = instruction.opcode, instruction.text
      if opcode in ('convolution', 'dot'):
        total += _product(instruction, computations[name])
      elif opcode in _CALLS:
        times = (program.turns(instruction, computations)
                 if opcode == 'while' else 1)
        total += times * of(program.called(text, _CALLS[opcode]))
    return total

  return of(entry)


def _product(instruction, computation) -> float:
  text = instruction.text
  shapes = [_dims(computation[name].shape) for name in instruction.operands]
  multiplied = math.prod(_dims(instruction.shape))
  if instruction.opcode == 'dot':
    found = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', text)
    axes = [int(axis) for axis in found[1].split(',') if axis] if found else []
    return 2.0 * multiplied * math.prod(shapes[0][axis] for axis in axes)
  labels = re.search(r'dim_labels=\w+_(\w+)->', text)
  if not labels:
    raise ValueError(f'a convolution without labels: {text[:200]}')
  multiplied *= shapes[1][labels[1].index('i')]
  window = re.search(r'window=\{([^}]*)\}', text)
  if window:
    parts = dict(re.findall(r'(\w+)=(\S+)', window[1]))
    sizes = [int(size) for size in parts['size'].split('x')]
    pads = parts.get('pad', 'x'.join(['0_0'] * len(sizes))).split('x')
    dilations = parts.get('lhs_dilate', 'x'.join('1' * len(sizes))).split('x')
    for size, pad, dilation in zip(sizes, pads, dilations, strict=True):
      if pad == '0_0' and dilation == '1':
        multiplied *= size
  return 2.0 * multiplied


def _dims(shape: str) -> list[int]:
  found = program.ARRAY.match(shape)
  if not found:
    raise ValueError(f'no array: {shape}')
  return [int(dim) for dim in found[2].split(',') if dim]
