"""Plans M3P-base's pre-training on slices of one chip to 512, as a table.

python -m benchmarks.plan_table --workdir=plans [--search]
                                [--topologies=v5e:1x1,2*v5e:16x16]

The work of a chip stays the same, 512 rows a step: what changes is how much of
the state it holds and how much it hears from others. Each plan compiles for
five to ten minutes of CPU time; those that are in the workdir are not made
again. Needs requirements-plan.txt.
"""

from collections.abc import Sequence
import json
import math
import pathlib
from typing import Any

from absl import flags

from configs import pretrain
from input_pipeline import console
from input_pipeline import errors
from input_pipeline import fingerprint
from m3p_jax import config as config_lib
from m3p_jax.evaluation import provenance
from m3p_jax.planning import jobs
from m3p_jax.planning import plan

TOPOLOGIES = ('v5e:1x1', 'v5e:2x2', 'v5e:2x4', 'v5e:4x4', 'v5e:8x8',
              'v5e:16x16', 'v5p:4x4x4', 'v4:4x4x4', 'v6e:16x16', '2*v5e:16x16')
ROWS_A_CHIP = 512
_COLUMNS = ('slice', 'chips', 'rows a step', 'state a chip', 'memory a chip',
            'HBM traffic', 'links busy', 'waited for', 'step at best',
            'rows/s at best', 'utilisation')


def make(name: str, workdir: pathlib.Path, *, search: bool) -> dict[str, Any]:
  """Returns the plan of a topology, made if its folder has none of this code.
  """
  slices, _, topology = name.rpartition('*')
  config = pretrain.get_config()
  config.plan.update(dict(
      topology=topology, slices=int(slices or 1), search=search))
  chips = config.plan.slices * math.prod(
      map(int, topology.partition(':')[2].split('x')))
  scale = ROWS_A_CHIP * chips / jobs.count_rows(config)
  config = jobs.scaled(config, scale, chips)
  # A plan takes minutes; the table goes on from those that are there.
  folder = workdir / name.replace(':', '-').replace('*', 'x') / fingerprint.of(
      [config_lib.to_json(config), provenance.commit()])
  if (folder / 'plan.json').exists():
    return json.loads((folder / 'plan.json').read_text())
  return plan.plan(config, folder)


def row(found: dict[str, Any]) -> list[str]:
  """Returns the cells of one plan."""
  gib = {name: size / 2**30
         for name, size in found['bytes_per_chip'].items()}
  cells = [f'{found["slices"]} x ' * (found['slices'] > 1) + found['topology'],
           str(found['chips']), f'{found["rows_per_step"]:,}',
           f'{gib["parameters"] + gib["optimizer"]:.2f} GiB',
           f'{gib["total"]:.1f} of {gib["limit"]:.0f} GiB']
  if found['utilisation_bound'] is None:
    return cells + ['does not fit'] + [''] * 5
  return cells + [f'{found["bytes_accessed_per_chip"] / 1e9:.0f} GB', *(
      f'{1000 * seconds:.0f} ms' for seconds in (
          found['ici_seconds'] + found['dcn_seconds'],
          found['exposed_seconds'], found['step_seconds'])),
                  f'{found["rows_per_second"]:,.0f}',
                  f'{found["utilisation_bound"]:.2f}']


def main(argv: Sequence[str]) -> None:
  """Prints the table in Markdown."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  args = flags.FLAGS
  plans = [make(topology, pathlib.Path(args.workdir), search=args.search)
           for topology in args.topologies]
  lines = [_COLUMNS, ['---'] + ['---:'] * (len(_COLUMNS) - 1),
           *map(row, plans)]
  print('\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines))


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'plans', 'Gets a folder for each plan.')
  flags.DEFINE_list('topologies', list(TOPOLOGIES), 'Slices to plan for.')
  flags.DEFINE_bool('search', False, 'The largest batch that fits instead.')
  console.run_main(main)
