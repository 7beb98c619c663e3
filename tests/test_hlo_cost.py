"""Costs read from a compiled program: loops are counted as often as they run.
"""

import jax
import jax.numpy as jnp
import numpy as np

from m3p_jax.planning import chips
from m3p_jax.planning import hlo_cost

SIZE = 256


def scanned(x, kernels):
  return jax.lax.scan(
      lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]


def compiled(function, *arguments):
  return jax.jit(function).lower(*arguments).compile()


def test_scanned_layers_cost_what_unrolled_ones_do():
  x = jnp.ones((SIZE, SIZE))
  for layers in (3, 6):
    kernels = jnp.ones((layers, SIZE, SIZE))
    traced = hlo_cost.traced_flops(jax.make_jaxpr(scanned)(x, kernels))
    assert traced == layers * 2 * SIZE ** 3
    loop = compiled(scanned, x, kernels)
    # The compiler's own analysis is why this exists.
    assert loop.cost_analysis()['flops'] < 1.2 * traced / layers
    cost = hlo_cost.count(loop.as_text())
    # A layer reads a kernel and its input, and writes its output; little else.
    least = layers * 3 * 4 * SIZE ** 2
    assert least <= cost.hbm_bytes <= 3 * least


def test_without_loops_it_agrees_with_the_compiler():
  def mlp(x, inner, outer):
    return jnp.tanh(x @ inner) @ outer

  program = compiled(mlp, *(jnp.ones((SIZE, SIZE)),) * 3)
  cost = hlo_cost.count(program.as_text())
  np.testing.assert_allclose(
      cost.bytes, program.cost_analysis()['bytes accessed'], rtol=0.1)


# What a TPU's compiler writes, cut down: a product as a convolution in a loop
# of four turns by twos, and a fusion that reads a slice of its operand.
TPU = """HloModule step

%body (p: (f32[8,16], u32[])) -> (f32[8,16], u32[]) {
  %p = (f32[8,16]{1,0}, u32[]{:T(128)}) parameter(0)
  %x = f32[8,16]{1,0} get-tuple-element(%p), index=0
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %two = u32[]{:T(128)} constant(2)
  %k = f32[16,16]{1,0:T(8,128)S(1)} broadcast(%two), dimensions={}
  %y = f32[8,16]{1,0} convolution(%x, %k), dim_labels=bf_io->bf
  %n = u32[]{:T(128)} add(%i, %two)
  ROOT %t = (f32[8,16]{1,0}, u32[]{:T(128)}) tuple(%y, %n)
}

%test (p.1: (f32[8,16], u32[])) -> pred[] {
  %p.1 = (f32[8,16]{1,0}, u32[]{:T(128)}) parameter(0)
  %i.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=1
  %limit = u32[]{:T(128)} constant(8)
  ROOT %c = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

%sliced (a: f32[64,16], b: s32[]) -> f32[8,16] {
  %a = f32[64,16]{1,0} parameter(0)
  %b = s32[]{:T(128)} parameter(1)
  ROOT %s = f32[8,16]{1,0} dynamic-slice(%a, %b, %b), dynamic_slice_sizes={8,16}
}

ENTRY %main (table: f32[64,16], at: s32[], zero: u32[]) -> f32[8,16] {
  %table = f32[64,16]{1,0} parameter(0)
  %at = s32[]{:T(128)S(6)} parameter(1)
  %zero = u32[]{:T(128)} parameter(2)
  %row = f32[8,16]{1,0} fusion(%table, %at), kind=kLoop, calls=%sliced
  %first = (f32[8,16]{1,0}, u32[]{:T(128)}) tuple(%row, %zero)
  %loop = (f32[8,16]{1,0}, u32[]) while(%first), condition=%test, body=%body
  ROOT %out = f32[8,16]{1,0} get-tuple-element(%loop), index=0
}
"""


def test_a_tpu_program_is_read_as_written():
  cost = hlo_cost.count(TPU)
  assert cost.flops == 4 * 2 * 8 * 16 * 16
  block, scalar = 4 * 8 * 16, 4
  # The fusion reads 8 of 64 rows. In each of 4 turns: the constant broadcast
  # into core memory, the product in and out, the counter and its addition.
  assert cost.hbm_bytes == 2 * block + 4 * (
      scalar + 2 * block + 3 * scalar)
  # Core memory counts by the compiler's rules.
  assert cost.bytes > cost.hbm_bytes
  computations, entry = hlo_cost.parse(TPU)
  assert entry == 'main'
  assert hlo_cost.turns(
      computations['main']['loop'], computations) == 4


def test_chips_are_known_by_topology_and_by_device():
  chip = chips.of_topology('v5e:2x4')
  assert chips.of_device(chip.kind) == chip
  assert chips.of_device('cpu') is None


def test_of_a_condition_the_longer_branch_counts():
  def step(x, is_long):
    return jax.lax.cond(
        is_long, lambda x: jnp.tanh(x @ x) @ x, lambda x: x @ x, x)

  cost = hlo_cost.count(compiled(
      step, jnp.ones((SIZE, SIZE)), jnp.bool_(True)).as_text())
  assert cost.flops == 2 * 2 * SIZE ** 3
