"""Collectives of a compiled program: their bytes, their time, what hides them.
"""

import itertools
import types

import pytest

from m3p_jax.planning import chips
from m3p_jax.planning import links

# What a TPU's compiler writes, cut down: a gather in a chain of fusions with a
# product of 40 µs, four sums in a loop, and a sum with another slice.
TPU = """HloModule step, is_scheduled=true

%begin (a: bf16[8,1024]) -> (bf16[8,1024], bf16[64,1024]) {
  %a = bf16[8,1024]{1,0} parameter(0)
  %g = bf16[64,1024]{1,0} all-gather(%a), channel_id=7, \
replica_groups=mesh['x'=2,'y'=8] {'y'}, dimensions={0}
  ROOT %t = (bf16[8,1024]{1,0}, bf16[64,1024]{1,0}) tuple(%a, %g)
}

%async_collective_fusion.2 (b: bf16[8,1024], x: f32[16,1250], k: \
f32[1250,1000]) -> (f32[16,1000], bf16[64,1024]) {
  %b = bf16[8,1024]{1,0} parameter(0)
  %x = f32[16,1250]{1,0} parameter(1)
  %k = f32[1250,1000]{1,0} parameter(2)
  %h = bf16[64,1024]{1,0} all-gather(%b), channel_id=7, \
replica_groups=mesh['x'=2,'y'=8] {'y'}, dimensions={0}
  %y = f32[16,1000]{1,0} convolution(%x, %k), dim_labels=bf_io->bf
  ROOT %u = (f32[16,1000]{1,0}, bf16[64,1024]{1,0}) tuple(%y, %h)
}

%end (c: bf16[8,1024]) -> bf16[64,1024] {
  %c = bf16[8,1024]{1,0} parameter(0)
  ROOT %i = bf16[64,1024]{1,0} all-gather(%c), channel_id=7, \
replica_groups=mesh['x'=2,'y'=8] {'y'}, dimensions={0}
}

%body (p: (f32[256], u32[])) -> (f32[256], u32[]) {
  %p = (f32[256]{0}, u32[]) parameter(0)
  %v = f32[256]{0} get-tuple-element(%p), index=0
  %n = u32[] get-tuple-element(%p), index=1
  %r = f32[256]{0} all-reduce(%v), channel_id=8, \
replica_groups={{0,1,2,3,4,5,6,7},{8,9,10,11,12,13,14,15}}, to_apply=%add
  ROOT %q = (f32[256]{0}, u32[]) tuple(%r, %n)
}

ENTRY %main (w: bf16[8,1024], z: f32[16,1250], m: f32[1250,1000], s: \
f32[512], o: (f32[256], u32[])) -> bf16[64,1024] {
  %w = bf16[8,1024]{1,0} parameter(0)
  %z = f32[16,1250]{1,0} parameter(1)
  %m = f32[1250,1000]{1,0} parameter(2)
  %s = f32[512]{0} parameter(3)
  %o = (f32[256]{0}, u32[]) parameter(4)
  %async-collective-start.1 = (bf16[8,1024]{1,0}, bf16[64,1024]{1,0}) \
fusion(%w), kind=kCustom, calls=%begin
  %w.1 = bf16[8,1024]{1,0} get-tuple-element(%async-collective-start.1), index=0
  %fusion.2 = (f32[16,1000]{1,0}, bf16[64,1024]{1,0}) fusion(%w.1, %z, %m), \
kind=kOutput, calls=%async_collective_fusion.2
  %async-collective-done.1 = bf16[64,1024]{1,0} fusion(%w.1), kind=kCustom, \
calls=%end
  %loop = (f32[256]{0}, u32[]) while(%o), condition=%test, body=%body, \
backend_config={"known_trip_count":{"n":"4"}}
  %token = token[] after-all()
  %send.3 = (f32[512]{0}, u32[], token[]) send(%s, %token), channel_id=9, \
is_host_transfer=true, \
frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %send-done.3 = token[] send-done(%send.3), channel_id=9
  ROOT %out = bf16[64,1024]{1,0} copy(%async-collective-done.1)
}
"""
CHIP = chips.Chip('x', peak_flops=1e12, bandwidth=1e13, memory_bytes=1,
                  link_bandwidth=1e9, torus_length=16, dcn_bandwidth=1e6)


def slices(count, *shape):
  return [types.SimpleNamespace(slice_index=index, coords=coords)
          for index in range(count)
          for coords in itertools.product(*map(range, shape))]


def test_what_products_hide_is_not_waited_for():
  found = links.count(TPU, slices(2, 2, 4), CHIP)
  gathered, summed, far = 2 * 64 * 1024 * 7 / 8, 2 * 4 * 256 * 7 / 8, 4 * 512
  # A chain of fusions is one gather, a loop of four turns is four sums.
  assert found['collective_bytes'] == {
      'all-gather': gathered, 'all-reduce': 4 * summed, 'dcn': far}
  # A slice of 2 x 4 is open: a link of each of its two axes brings data.
  assert found['ici_seconds'] == pytest.approx(
      (gathered + 4 * summed) / 2e9)
  assert found['dcn_seconds'] == pytest.approx(far / 1e6)
  product = 2 * 16 * 1250 * 1000 / 1e12
  assert found['exposed_seconds'] == pytest.approx(
      found['ici_seconds'] + found['dcn_seconds'] - product, rel=1e-4)
  assert found['ordered_step_seconds'] == pytest.approx(
      found['exposed_seconds'] + product, rel=1e-4)


def test_bytes_are_told_where_the_chip_is_not_known():
  found = links.count(TPU, slices(2, 2, 4), None)
  assert found['collective_bytes']['all-gather'] == 2 * 64 * 1024 * 7 / 8
  assert found['exposed_seconds'] is None


@pytest.mark.parametrize('written, group', [
    ('replica_groups={{0,2},{1,3}}', [0, 2]),
    ('replica_groups=[2,4]<=[8]', [0, 1, 2, 3]),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', [0, 4]),
    ("replica_groups=mesh['a'=4,'b'=2] {'a'}", [0, 2, 4, 6]),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}",
     [0, 1, 2, 3]),
    ("replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([2,4]) {'c'}",
     [0, 1, 2, 3]),
    ('source_target_pairs={{1,4},{3,5}}', [1, 4])])
def test_groups_are_read_however_they_are_written(written, group):
  assert links._group(f'(%x), channel_id=1, {written}, dimensions=') == group


@pytest.mark.parametrize('topology, shape, group, lanes', [
    ('v5e', (16, 16), range(16), 2), ('v5e', (16, 16), range(256), 4),
    ('v5e', (4, 4), range(4), 1), ('v5p', (4, 4, 4), range(64), 6),
    ('v5p', (2, 4, 4), range(4), 1)])
def test_closed_axes_bring_data_from_both_sides(topology, shape, group, lanes):
  chip = chips.CHIPS[topology]
  found = links.Network(slices(1, *shape), chip).send(
      'all-gather', 1e9, group)
  size = len(group)
  assert found['ici_seconds'] == pytest.approx(
      1e9 * (size - 1) / size / (lanes * chip.link_bandwidth))
