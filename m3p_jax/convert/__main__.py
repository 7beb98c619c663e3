"""Weights in and out: python -m m3p_jax.convert import|export|check.

import --from=m3p|volta|xlmr|e5|safetensors --path=FILE --out=DIR
       [--config=configs/NAME.py] [--overwrite]
export --to=m3p|volta|safetensors|stablehlo --checkpoint=DIR --out=PATH
       [--overwrite]
check  --from=m3p|xlmr --checkpoint=FILE --vectors=DIR
"""

import signal
import sys

from absl import app
from absl import flags
import jax
from ml_collections import config_flags

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import output
from m3p_jax.convert import check
from m3p_jax.convert import exporting
from m3p_jax.convert import importing
from m3p_jax.convert import layout
from m3p_jax.model import config as model_config

_COMMANDS = {'import': ('from', 'path', 'out'),
             'export': ('to', 'checkpoint', 'out'),
             'check': ('from', 'checkpoint', 'vectors')}


def _import(values) -> None:
  config = values['config'].value
  asked = config and model_config.geometry(config.model)
  with output.draft(values.out, overwrite=values.overwrite) as path:
    imported = importing.read(
        values['from'].value, values.path, asked=asked,
        seed=config.seed if config else 0)
    importing.write(
        imported, path,
        asked_languages=config.data.languages if config else None)
  print(layout.report(imported.lines))
  print(f'written to {values.out}; start from it with '
        f'--config.init_from={values.out}')


def _export(values) -> None:
  source = exporting.load(values.checkpoint)
  with output.draft(values.out, overwrite=values.overwrite) as path:
    lines = exporting.write(values.to, source, path)
  print(layout.report(lines))
  print(f'written to {values.out}')


def _check(values) -> None:
  lines = check.run(values['from'].value, values.checkpoint, values.vectors)
  for line in lines:
    print(line)
  sys.exit(0 if all(line.passes for line in lines) else 1)


def _parse(argv: list[str]) -> list[str]:
  if len(argv) < 2 or argv[1] not in _COMMANDS:
    found = argv[1] if len(argv) > 1 else ''
    if found in ('--help', '-h', '-?'):
      print(__doc__)
      sys.exit(0)
    raise errors.UserError(
        f'the command is {found!r}; allowed: {", ".join(_COMMANDS)}')
  command, *rest = argv[1:]
  kinds = {'import': importing.KINDS, 'check': check.KINDS}
  if command in kinds:
    flags.DEFINE_enum('from', None, kinds[command], 'Format of the file.')
  else:
    flags.DEFINE_enum('to', None, exporting.KINDS, 'Format to write.')
  flags.DEFINE_string('path', None, 'Weight file to read.')
  flags.DEFINE_string('checkpoint', None,
                      'export: checkpoint or workdir; check: weight file.')
  flags.DEFINE_string('vectors', None,
                      'Folder with inputs.npz and outputs.npz.')
  flags.DEFINE_string('out', None, 'File or folder to write.')
  flags.DEFINE_bool('overwrite', False, 'Replace what is at --out.')
  config_flags.DEFINE_config_file(
      'config', None, 'Geometry of what the file does not say.')
  console.check_flags(console.parse_flags([argv[0], *rest]),
                      _COMMANDS[command])
  return [argv[0], command]


def end_when_told() -> None:
  """Makes SIGTERM raise, so that drafts are removed."""
  def end(*_):
    sys.exit(128 + signal.SIGTERM)

  def end_later(unraisable):
    if isinstance(unraisable.exc_value, SystemExit):
      # Raised in a callback, as the garbage collector's, and swallowed there.
      signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
      sys.__unraisablehook__(unraisable)

  signal.signal(signal.SIGTERM, end)
  signal.signal(signal.SIGALRM, end)
  sys.unraisablehook = end_later


def main(argv: list[str]) -> None:
  """Runs one command."""
  # Nothing here needs an accelerator, which a training may hold; and float32
  # products are exact to float32 on a CPU alone.
  jax.config.update('jax_platforms', 'cpu')
  end_when_told()
  console.show_own_logs()
  {'import': _import, 'export': _export, 'check': _check}[argv[1]](flags.FLAGS)


if __name__ == '__main__':
  app.run(console.one_line(main),
          flags_parser=console.one_line(_parse))
