"""What a step sends between chips, how long that takes, and what hides it.

A compiled program is in the order in which it runs. `count` follows it with two
clocks: products and passes over memory take what the chip's peaks allow; a
collective that begins and ends apart runs beside what stands between, any other
is waited for. Bandwidths are the makers', latency is none and every ring is
laid as well as its slice allows: times are bounds, as everything in a plan.
"""

import collections
from collections.abc import Sequence
import re
from typing import Any

from absl import logging
import numpy as np

from m3p_jax.planning import chips
from m3p_jax.planning import hlo_cost

# What a chip receives, in parts of (n - 1)/n of the whole array, of a ring.
_PARTS = {'all-reduce': 2}


def count(text: str, devices: Sequence[Any],
          chip: chips.Chip | None) -> dict[str, Any]:
  """Returns bytes and seconds of a device by the keys of `plan.Plan`.

  Args:
    text: `compiled.as_text()`.
    devices: in the order of the mesh.
    chip: None = bytes alone.
  """
  program, entry = hlo_cost.parse(text)
  found = _Clock(program, Network(devices, chip), chip).run(entry)
  seconds = {
      'ici_seconds': found['ici_seconds'], 'dcn_seconds': found['dcn_seconds'],
      'exposed_seconds': found['waiting'],
      'ordered_step_seconds': _seconds(found)}
  return {'collective_bytes': {
      kind: found[kind] for kind in (*hlo_cost.COLLECTIVES, 'dcn')
      if found[kind]}} | {
          key: value if chip else None for key, value in seconds.items()}


class Network:
  """The links between the devices of a mesh."""

  def __init__(self, devices: Sequence[Any], chip: chips.Chip | None):
    self._chip = chip
    self._slice_D = np.array([
        getattr(device, 'slice_index', 0) or 0 for device in devices])
    self._num_slices = len(set(self._slice_D))
    # Other devices than TPUs tell no place: one line of them.
    self._coords_DX = np.array([
        getattr(device, 'coords', None) or (index,)
        for index, device in enumerate(devices)])
    self._shape_X = self._coords_DX.max(0) + 1

  def send(self, kind: str, whole: float, group: Sequence[int],
           ) -> dict[str, float]:
    """Returns bytes by their name, and seconds, of one collective.

    `whole` is the array that a group of devices, given by their numbers, has
    together.
    """
    parts, chosen = _PARTS.get(kind, 1), list(group)
    slices = len(set(self._slice_D[chosen]))
    size = max(1, len(chosen) // slices)
    received = parts * whole * (size - 1) / size
    found = {kind: received}
    if slices > 1:
      found |= self.send_far(parts * whole / size, slices)
    if self._chip and received:
      lanes, hops = self._lanes(chosen)
      if kind == 'collective-permute':
        received, lanes = whole, 1
      found['ici_seconds'] = received / (lanes * self._chip.link_bandwidth) * (
          max(1.0, hops) if kind == 'all-to-all' else 1.0)
    return found

  def send_far(self, own: float, slices: int = 0) -> dict[str, float]:
    """Returns the same of what a chip exchanges with other slices."""
    slices = slices or self._num_slices
    received = own * (slices - 1) / slices
    if not self._chip:
      return {'dcn': received}
    return {'dcn': received,
            'dcn_seconds': received / self._chip.dcn_bandwidth}

  def _lanes(self, group: list[int]) -> tuple[int, float]:
    """Returns (links into a chip that a group can use, hops on the way).

    Two of each axis that the group goes round, one where it goes along.
    """
    lanes, hops = 0, 0.0
    for values, length in zip(
        self._coords_DX[group].T, self._shape_X, strict=True):
      extent = len(set(values))
      if extent > 1:
        is_round = extent == length and self._wraps(length)
        lanes += 1 + is_round
        hops += extent / (4 if is_round else 3)
    return max(1, lanes), hops

  def _wraps(self, length: int) -> bool:
    # Three axes are closed where the slice is made of whole cubes alone.
    lengths = self._shape_X if self._shape_X[-1] > 1 else [length]
    return all(one % self._chip.torus_length == 0 for one in lengths)


class _Clock:
  """Runs a program on paper."""

  def __init__(self, program: hlo_cost.Program, network: Network,
               chip: chips.Chip | None):
    self._program, self._network, self._chip = program, network, chip
    self._bytes = hlo_cost.Bytes(program)
    self._flops = hlo_cost.Flops(program)
    self._known: dict[str, collections.Counter] = {}

  def run(self, name: str) -> collections.Counter:
    """Returns seconds and bytes by their names, of one run of a computation."""
    if name not in self._known:
      self._known[name] = self._run(self._program[name])
    return self._known[name]

  def _run(self, computation: hlo_cost.Computation) -> collections.Counter:
    total: Any = collections.Counter()
    # When each network is free again, and when what is under way arrives.
    free: dict[str, float] = collections.defaultdict(float)
    arrival, now = {}, 0.0
    for instruction in computation.values():
      times, names = hlo_cost.runs(instruction, self._program)
      if names:
        inner = max(map(self.run, names), key=_seconds)
        total.update({key: times * value for key, value in inner.items()})
        now += times * _seconds(inner)
        continue
      begins, ends, found = self._collective(instruction, computation)
      if not (begins or ends):
        seconds = self._core_seconds(instruction, computation)
        total['busy'] += seconds
        now += seconds
      if begins:
        total.update(found)
        for key in ('ici_seconds', 'dcn_seconds'):
          if found.get(key):
            free[key] = max(now, free[key]) + found[key]
            arrival[begins] = max(free[key], arrival.get(begins, 0.0))
      if ends:
        then = max(now, arrival.pop(ends, now))
        total['waiting'] += then - now
        now = then
    return total

  def _core_seconds(self, instruction, computation) -> float:
    if not self._chip:
      return 0.0
    return max(
        self._flops.of_instruction(instruction, computation)
        / self._chip.peak_flops,
        self._bytes.of_instruction(instruction, computation)
        / self._chip.bandwidth)

  def _collective(self, instruction, computation):
    """Returns (what begins here, what ends here, what it sends)."""
    opcode, name = instruction.opcode, instruction.name
    kind = opcode.removesuffix('-start').removesuffix('-done')
    if opcode == 'send-done' or (
        kind in hlo_cost.COLLECTIVES and opcode.endswith('-done')):
      return None, instruction.operands[0], {}
    if opcode == 'send':
      # To another slice, by way of the hosts.
      own = hlo_cost.size(computation[instruction.operands[0]].shape)
      parts = 2 if 'ALL_REDUCE' in instruction.text else 1
      return name, None, self._network.send_far(parts * own)
    if kind in hlo_cost.COLLECTIVES:
      ends = None if opcode.endswith('-start') else name
      return name, ends, self._sent(kind, instruction, computation)
    if opcode != 'fusion':
      return None, None, {}
    body = self._program[hlo_cost.called(instruction.text, 'calls')]
    for inner in body.values():
      if inner.opcode in hlo_cost.COLLECTIVES:
        return self._fused(name, instruction, inner, body)
    return None, None, {}

  def _fused(self, name, fusion, inner, body):
    """Returns the same of a fusion that a collective is in.

    One that runs beside products is in a chain of fusions, the products'
    too: all of them name its channel.
    """
    channel = 'channel ' + re.findall(
        r'channel_id=(\d+)', inner.text + ' channel_id=0')[0]
    if name.startswith(hlo_cost.STARTS):
      return channel, None, self._sent(inner.opcode, inner, body)
    if name.startswith(hlo_cost.ENDS):
      return None, channel, {}
    if 'all-reduce-scatter' in fusion.text:
      return name, name, self._sent('reduce-scatter', inner, body)
    return None, None, {}

  def _sent(self, kind, instruction, computation) -> dict[str, float]:
    read = sum(hlo_cost.size(computation[name].shape)
               for name in instruction.operands if name in computation)
    written = hlo_cost.size(instruction.shape)
    if instruction.opcode.endswith('-start'):
      written -= read
    return self._network.send(
        kind, max(read, written), _group(instruction.text))


def _seconds(found: collections.Counter) -> float:
  return found['busy'] + found['waiting']


def _group(text: str) -> list[int]:
  """Returns the numbers of the first group's devices.

  Written in full, as a counted block or as axes of a mesh: '{{0,1},{2,3}}',
  '[2,2]<=[2,2]T(1,0)', "mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}".
  """
  found = re.search(
      r"(?:replica_groups|source_target_pairs)=(?:\{\{([\d,]*)\}|"
      r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?|"
      r"mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\]"
      r"(?:T\(([\d,]+)\))?\))? \{([^}]*)\})", text)
  if not found:
    logging.warning('a collective of the compiled step names its devices in an '
                    'unknown way and is left out: %s', text[:200])
    return [0]
  listed, block, shape, order, axes, mesh_shape, mesh_order, names = (
      found.groups())
  if listed is not None:
    return _numbers(listed)
  if block is not None:
    return list(_ids(shape, order).reshape(_numbers(block))[0])
  sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
  ids = _ids(mesh_shape or ','.join(map(str, sizes.values())),
             mesh_order).reshape(*sizes.values())
  chosen = set(re.findall(r"'(\w+)'", names))
  return list(ids[tuple(slice(None) if name in chosen else 0
                        for name in sizes)].ravel())


def _ids(shape: str, order: str | None) -> np.ndarray:
  """Returns devices' numbers in a shape, its axes in another order."""
  ids = np.arange(np.prod(_numbers(shape))).reshape(_numbers(shape))
  return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
  return [int(part) for part in text.split(',') if part]
