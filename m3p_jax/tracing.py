"""What a run did when: a trace of some steps, and how much of it computed.

Train with --config.profile_steps=20, then: python -m m3p_jax.tracing WORKDIR
"""

from collections.abc import Iterator
import contextlib
import gzip
import json
import pathlib
import sys

import jax

from input_pipeline import errors

# Steps before the trace begins: the first one compiles, and the pipeline's
# buffers fill.
_WARM_UP = 10
_READ = 'm3p read'
_STEP = 'm3p step'


@contextlib.contextmanager
def step(workdir: pathlib.Path, number: int, num_traced: int) -> Iterator[None]:
  """Marks one step of the loop; starts and ends the trace around some.

  Args:
    workdir: gets `trace/`.
    number: of the step in this run, from 1.
    num_traced: steps to trace; 0 = none.
  """
  if num_traced and number == _WARM_UP + 1:
    jax.profiler.start_trace(workdir / 'trace')
  with jax.profiler.StepTraceAnnotation(_STEP, step_num=number):
    yield
  if num_traced and number == _WARM_UP + num_traced:
    jax.profiler.stop_trace()


def check(profile_steps: int, num_steps: int) -> None:
  """Raises UserError where the run ends before its trace begins."""
  if profile_steps and num_steps <= _WARM_UP:
    raise errors.UserError(
        f'profile_steps is {profile_steps}: the trace begins after '
        f'{_WARM_UP} steps, and {num_steps} are left; raise num_train_steps, '
        'or set profile_steps to 0')


@contextlib.contextmanager
def ended() -> Iterator[None]:
  """Returns a context that writes a trace which outlasts it."""
  try:
    yield
  finally:
    with contextlib.suppress(RuntimeError):  # There is none.
      jax.profiler.stop_trace()


def part(name: str) -> jax.profiler.TraceAnnotation:
  """Returns a context that marks a part of a step."""
  return jax.profiler.TraceAnnotation(f'm3p {name}')


def compute_share(workdir: pathlib.Path) -> float:
  """Returns the share of the traced steps that was no waiting for data.

  A step of the loop waits for nothing but data and the devices: what was not
  spent on reading a batch, a device computed. It computes through most of the
  reading as well, so the true share is higher.

  Raises:
    UserError: there is no trace.
  """
  files = sorted((workdir / 'trace').rglob('*.trace.json.gz'))
  if not files:
    raise errors.UserError(
        f'{workdir}/trace: no trace; train with --config.profile_steps=20')
  with gzip.open(files[-1], 'rt') as file:
    events = json.load(file)['traceEvents']
  seconds = {name: sum(event.get('dur', 0) for event in events
                       if event.get('name') == name)
             for name in (_READ, _STEP)}
  if not seconds[_STEP]:
    raise errors.UserError(f'{files[-1]}: no step in it')
  return 1 - seconds[_READ] / seconds[_STEP]


def main(arguments: list[str]) -> None:
  """Prints the share of a workdir's trace."""
  if len(arguments) != 1:
    raise errors.UserError('usage: python -m m3p_jax.tracing WORKDIR')
  share = compute_share(pathlib.Path(arguments[0]))
  print(f'{share:.1%} of the traced steps computed, {1 - share:.1%} waited for '
        'data')


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
