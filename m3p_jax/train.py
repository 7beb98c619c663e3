"""The training loop: start or resume, update, validate, save."""

from collections.abc import Collection, Iterator
import contextlib
import dataclasses
import functools
import json
import signal
import sys
import threading
import time
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import ml_collections

from input_pipeline import errors
from input_pipeline import paths
from input_pipeline import streams as streams_lib
from m3p_jax import adapters
from m3p_jax import batch as batch_lib
from m3p_jax import checkpoint
from m3p_jax import config as config_lib
from m3p_jax import first_values
from m3p_jax import metrics as metrics_lib
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import summary
from m3p_jax import train_step
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p
from m3p_jax.objectives import frequencies
from m3p_jax.planning import plan

ConfigDict = ml_collections.ConfigDict
# Rows that are counted at a time.
_COUNTED_TOGETHER = 256
# Steps before a trace: the first one compiles, and the pipeline's buffers fill.
_UNTRACED_STEPS = 10


def train_and_evaluate(config: ConfigDict, workdir: str | paths.Path, *,
                       given: Collection[str] = ()) -> dict[str, float]:
  """Trains up to `num_train_steps` and returns the last validation losses.

  Args:
    config: as `configs/base.py`.
    workdir: gets config.json, metrics.jsonl and checkpoints/; a run found
      there goes on from its newest good checkpoint.
    given: dotted keys that the command line set.

  Raises:
    UserError: anything in config or workdir that cannot be meant, or a loss
      that is not finite.
    SystemExit: with 0, after SIGTERM; the state is saved.
  """
  workdir = paths.of(workdir).absolute()
  config = config.copy_and_resolve_references()
  config_lib.check(config)
  output.check_writable(workdir, '--workdir')
  start = startup.resolve(config, workdir, given=given)
  config.model.update(dataclasses.asdict(start.config))
  path = workdir / 'config.json'
  steps = checkpoint.steps(workdir / 'checkpoints')
  if steps and path.exists():
    config_lib.check_resumable(
        json.loads(path.read_text()), config, workdir)
  if steps and steps[-1] >= config.num_train_steps:
    logging.info('%s: step %d of %d is reached; nothing to do', workdir,
                 steps[-1], config.num_train_steps)
    return {}
  if steps:
    startup.check_same_data(start.manifest, workdir / 'checkpoints')
  num_left = config.num_train_steps - (steps[-1] if steps else 0)
  if config.profile_steps and num_left <= _UNTRACED_STEPS:
    raise errors.UserError(
        f'profile_steps is {config.profile_steps}: the trace begins after '
        f'{_UNTRACED_STEPS} steps, and {num_left} are left; raise '
        'num_train_steps, or set profile_steps to 0')
  startup.use_compilation_cache()
  run = _Run(config, workdir, start)
  workdir.mkdir(parents=True, exist_ok=True)
  if sharding.is_first():
    draft = path.with_suffix('.tmp')
    draft.write_text(json.dumps(config_lib.to_json(config), indent=2) + '\n')
    draft.replace(path)
  with jax.set_mesh(run.mesh), contextlib.closing(run.checkpointer):
    return run.go()


class _Run:
  """Everything that the loop holds: data, compiled steps, state, files."""

  def __init__(self, config: ConfigDict, workdir: paths.Path,
               start: startup.Start):
    self.config, self.workdir, self.start = config, workdir, start
    self.mesh = sharding.make_mesh(**config.mesh)
    for name, task in config.tasks.items():
      sharding.check_batch_size(self.mesh, name, task.batch_size,
                                config.accumulation_steps)
    self.schedule, self.tx = startup.make_optimizer(config)
    self.model = m3p.M3P(start.config, startup.model_options(config))
    self.checkpointer = checkpoint.Checkpointer(
        workdir / 'checkpoints', keep=config.keep_checkpoints)
    self.init_key, step_key = jax.random.split(jax.random.key(config.seed))
    # On all devices from the start: later nothing moves by accident.
    self.step_key = jax.jit(
        lambda key: key, out_shardings=sharding.replicated(self.mesh))(step_key)
    streams = self._open_data()
    self.abstract, self.create = startup.abstract_state(
        start.config, mesh=self.mesh, tx=self.tx,
        rate_factors=config.optimizer.rate_factors)
    adapters.check(self.abstract.params, config.optimizer.adapters)
    self.step_fn = train_step.jit(
        self.abstract, self.mesh, model=self.model,
        tasks=startup.make_tasks(config.tasks), tx=self.tx,
        accumulation_steps=config.accumulation_steps)
    self.iterator = iter(self.dataset)
    self.frequencies = self._count(streams)
    self.evaluate = jax.jit(functools.partial(
        train_step.eval_step, model=self.model,
        tasks=startup.make_tasks(
            config.tasks, frequencies=self.frequencies)))

  def _open_data(self):
    """Opens this host's share of the batches; returns the training streams."""
    import tensorflow as tf  # Slow, and modes that need no data never do it.

    from input_pipeline import pipeline
    # The accelerator's memory is JAX's.
    tf.config.set_visible_devices([], 'GPU')
    config, languages = self.config, self.start.languages
    share = dict(
        shard_index=jax.process_index(), num_shards=jax.process_count())
    streams = pipeline.Streams(
        config.data, config.tasks, split='train', languages=languages)
    self.dataset = streams.dataset(config.tasks, seed=config.seed, **share)
    _check_lengths(self.dataset, self.start.config)
    # Opened when it is first asked for, and kept: equal every time.
    self.validation = functools.cache(lambda: list(map(
        _to_numpy, pipeline.Streams(
            config.data, config.tasks, split='validation', switches=False,
            languages=languages).dataset(
                config.tasks, seed=0, steps=config.eval_batches, **share))))
    return streams

  def _count(self, streams) -> dict[str, frequencies.Frequencies]:
    """Returns the frequencies of each stream, {} where nothing reads them.

    Without code-switching, like the validation split: a baseline that knew
    foreign words, which never come there, would be easier to beat.
    """
    config = self.config
    if not (config.eval_batches or config.fit_first_values):
      return {}
    if not any(config_lib.takes_baseline(config_lib.find_loss(name, task))
               for name, task in config.tasks.items()):
      return {}
    batch_size = min(_COUNTED_TOGETHER, config.counted_rows)
    tasks = {
        streams_lib.key(task): ConfigDict({
            'stream': task.stream, 'data': task.data, 'batch_size': batch_size})
        for task in config.tasks.values()}
    # The same rows on every host: all begin with the same values.
    source = iter(streams.dataset(tasks, seed=config.seed, switches=False))
    return frequencies.count(
        (_to_numpy(next(source))
         for _ in range(config.counted_rows // batch_size)),
        vocab_size=self.start.config.padded_vocab_size,
        num_classes=self.start.config.num_region_classes)

  def go(self) -> dict[str, float]:
    """Returns the last validation losses, after all steps."""
    config = self.config
    state = self._first_state()
    first, losses = int(state.step), {}
    self._begin(state)
    with (contextlib.closing(self.progress), contextlib.ExitStack() as trace,
          _termination() as asked):
      if not first:
        losses = self._validate(state)
      self.progress.restart_clock()
      for step in range(first + 1, config.num_train_steps + 1):
        if config.profile_steps and step == first + _UNTRACED_STEPS + 1:
          trace.enter_context(jax.profiler.trace(self.workdir / 'trace'))
        with jax.profiler.StepTraceAnnotation('m3p step', step_num=step):
          state = self._update(state, step)
        if step == first + _UNTRACED_STEPS + config.profile_steps:
          trace.close()
        # Asked once a step: the signal may come at any moment.
        stops = (asked.is_set() if jax.process_count() == 1 else
                 multihost_utils.reached_preemption_sync_point(step))
        losses = self._pause(state, step, stops=stops)
    self.checkpointer.wait()
    return losses

  def _begin(self, state) -> None:
    """Shows the header; opens metrics.jsonl and the bar."""
    config, first = self.config, int(state.step)
    summary.show(summary.training_rows(
        config, self.start, state, self.mesh, self.workdir))
    self.writer = metrics_lib.Writer(self.workdir, start_step=first)
    self.progress = metrics_lib.Progress(
        self.writer, start_step=first, num_steps=config.num_train_steps,
        log_every=config.log_every_steps, schedule=self.schedule,
        rows_per_step=sum(t.batch_size for t in config.tasks.values()),
        title=self.workdir.name,
        unlogged=self.checkpointer.unlogged(first),
        max_bad_steps=config.max_bad_steps,
        peak_seconds=plan.peak_seconds(config, self.mesh))

  def _update(self, state, step: int):
    """Returns the state after one step, which the device may still work on."""
    begin = time.perf_counter()
    with jax.profiler.TraceAnnotation('m3p read'):
      rows = _to_numpy(next(self.iterator))
      batches = sharding.put_rows(self.mesh, rows)
    read_seconds = time.perf_counter() - begin
    # What the step reads is on the devices: nothing moves by accident.
    with jax.transfer_guard('disallow'):
      state, metrics = sharding.settle(
          self.step_fn(state, batches, self.step_key))
    self.progress.submit(step, metrics, rows, read_seconds=read_seconds)
    return state

  def _pause(self, state, step: int, *, stops: bool) -> dict[str, float]:
    """Validates and saves where it is time to; returns the losses.

    Raises:
      SystemExit: the run was asked to stop before its last step.
    """
    config = self.config
    is_last = step == config.num_train_steps
    stops = stops and not is_last
    saves = is_last or stops or step % config.checkpoint_every_steps == 0
    validates = is_last or (config.eval_every_steps
                            and step % config.eval_every_steps == 0)
    losses: dict[str, float] = {}
    loss = None
    if saves or validates:
      self.progress.flush()
    if validates:
      losses = self._validate(state)
      loss = self._deciding_loss(losses)
      # The best is kept, whether or not its turn has come: the first process
      # says so, for others may see its last save sooner or later.
      saves = saves or (loss is not None and bool(
          sharding.of_all(self.checkpointer.is_best(loss))[0]))
    if saves:
      # Before the next batch is drawn: the iterator is saved as it is.
      self.checkpointer.save(
          state, self.iterator, config=self.start.config,
          manifest=self.start.manifest, unlogged=self.progress.unlogged(),
          loss=loss)
    if stops:
      self.checkpointer.wait()
      logging.info('asked to stop: step %d is saved in %s; the same '
                   'command goes on from there', step, self.workdir)
      sys.exit(0)
    if saves or validates:
      self.progress.restart_clock()
    return losses

  def _first_state(self):
    """Returns the state on the mesh: of the newest checkpoint, or new."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
    state = self.checkpointer.restore(self.abstract, self.iterator)
    if state is None:
      params = sharding.settle(startup.initial_params(
          self.start, self.config, self.mesh, self.init_key))
      if self.config.fit_first_values:
        source = iter(self.dataset)  # Its own: the run's is not moved.
        batches = [sharding.put_rows(self.mesh, _to_numpy(next(source)))
                   for _ in range(self.config.fitting_batches)]
        params = first_values.fit(
            self.model, params, batches, self.frequencies,
            jax.random.fold_in(self.init_key, 1),
            writes='decoder' in config_lib.needs(self.config))
      state = jax.jit(self.create, out_shardings=shardings, donate_argnums=0)(
          params)
    return sharding.settle(jax.device_put(state, shardings))

  def _validate(self, state) -> dict[str, float]:
    """Writes and returns 'validation/task/metric' on the validation split."""
    if not self.config.eval_batches:
      return {}
    params, sums = state.swapped().all_params(), {}
    for index, batches in enumerate(self.validation()):
      # The same masks every time, and for every seed of training.
      key = jax.random.fold_in(jax.random.key(0), index)
      sums = metrics_lib.add(sums, jax.device_get(self.evaluate(
          params, sharding.put_rows(self.mesh, batches), key)))
    losses = {f'validation/{name}': float(mean.compute())
              for name, mean in sums.items()}
    self.writer.write(int(state.step), losses)
    return losses

  def _deciding_loss(self, losses: dict[str, float]) -> float | None:
    """Returns what the best checkpoint has the lowest of; None = unknown."""
    if not losses:
      return None
    name = self.config.best_metric
    if not name:
      return sum(task.weight * losses[f'validation/{name}/loss']
                 for name, task in self.config.tasks.items())
    if f'validation/{name}' not in losses:
      raise errors.UserError(
          f'best_metric is {name!r}; there are: '
          f'{", ".join(key.partition("/")[2] for key in sorted(losses))}')
    sign = -1 if name.endswith('accuracy') else 1
    return sign * losses[f'validation/{name}']


def _check_lengths(dataset, config: model_config.ModelConfig) -> None:
  """Raises UserError for rows longer than the model has positions for.

  JAX would give the last position to every token beyond it.
  """
  for name, rows in dataset.element_spec.items():
    length = rows.token_ids_BL.shape[1]
    if 'source_ids_BL' in rows.extra:  # Read in one row.
      length += rows.extra['source_ids_BL'].shape[1]
    has_regions = isinstance(rows.regions, batch_lib.Regions)
    num_regions = rows.num_regions if has_regions else 0
    try:
      start = config.text_start(num_regions) if has_regions else 0
    except ValueError as error:
      raise errors.UserError(f'rows of tasks.{name}: {error}') from error
    if start + length > config.max_positions:
      raise errors.UserError(
          f'rows of tasks.{name} have {num_regions} regions and {length} '
          f'tokens (max_length of its stream) from position {start} on, but '
          f'model.max_positions is {config.max_positions}; allowed: '
          f'{config.max_positions} together')


def _to_numpy(batches: Any) -> dict[str, batch_lib.Batch]:
  return jax.tree.map(lambda tensor: tensor.numpy(), batches)


@contextlib.contextmanager
def _termination() -> Iterator[threading.Event]:
  """Gives an event that is set by SIGTERM; the loop asks for it."""
  asked = threading.Event()
  # Python allows handlers in the main thread alone (notebooks, tests); of
  # several processes JAX has its own, and they agree on a step.
  if (threading.current_thread() is not threading.main_thread()
      or jax.process_count() > 1):
    yield asked
    return
  old = signal.signal(signal.SIGTERM, lambda *_: asked.set())
  try:
    yield asked
  finally:
    signal.signal(signal.SIGTERM, old)
