"""The training loop: start or resume, update, validate, save."""

from collections.abc import Collection
import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
from typing import Any

from absl import logging
import jax
import ml_collections

from input_pipeline import errors
from m3p_jax import checkpoint
from m3p_jax import config_check
from m3p_jax import hosts
from m3p_jax import metrics as metrics_lib
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax import tracing
from m3p_jax import train_step
from m3p_jax.model import m3p
from m3p_jax.planning import plan_step
from m3p_jax.saving import saved_storage
from m3p_jax.training import first_values
from m3p_jax.training import progress as progress_lib
from m3p_jax.training import start as start_lib
from m3p_jax.training import summary
from m3p_jax.training import training_data

ConfigDict = ml_collections.ConfigDict
# Batches that the match head is fitted to.
_FITTING_BATCHES = 4


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path, *,
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
  workdir = pathlib.Path(workdir).absolute()
  config = config.copy_and_resolve_references()
  config_check.check(config)
  output.check_writable(workdir, '--workdir')
  start = start_lib.resolve(config, workdir, given=given)
  config.model.update(dataclasses.asdict(start.config))
  path = workdir / 'config.json'
  steps = checkpoint.steps(workdir / 'checkpoints')
  if steps and path.exists():
    config_check.check_resumable(
        json.loads(path.read_text()), config, workdir)
  if steps and steps[-1] >= config.num_train_steps:
    logging.info('%s: step %d of %d is reached; nothing to do', workdir,
                 steps[-1], config.num_train_steps)
    return {}
  if steps:
    start_lib.check_same_data(start.manifest, workdir / 'checkpoints')
  tracing.check(config.profile_steps,
                config.num_train_steps - (steps[-1] if steps else 0))
  start_lib.use_compilation_cache()
  run = _Run(config, workdir, start)
  workdir.mkdir(parents=True, exist_ok=True)
  if hosts.is_first():
    draft = path.with_suffix('.tmp')
    draft.write_text(json.dumps(config_check.to_json(config), indent=2) + '\n')
    draft.replace(path)
  with jax.set_mesh(run.mesh), contextlib.closing(run.checkpointer):
    return run.go()


class _Run:
  """Everything that the loop holds: data, compiled steps, state, files."""

  def __init__(self, config: ConfigDict, workdir: pathlib.Path,
               start: start_lib.Start):
    self.config, self.workdir, self.start = config, workdir, start
    self.mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
    for name, task in config.tasks.items():
      sharding.check_batch_size(self.mesh, name, task.batch_size,
                                config.accumulation_steps)
    self.tasks = start_lib.make_tasks(config.tasks)
    self.schedule, self.tx = start_lib.make_optimizer(config)
    self.model = m3p.M3P(start.config, start_lib.model_options(config))
    self.checkpointer = checkpoint.Checkpointer(
        workdir / 'checkpoints', keep=config.keep_checkpoints)
    self.init_key, step_key = jax.random.split(jax.random.key(config.seed))
    # On all devices from the start: later nothing moves by accident.
    self.step_key = jax.jit(
        lambda key: key, out_shardings=sharding.replicated(self.mesh))(step_key)
    streams = training_data.open_train(config, start.languages)
    self.dataset = training_data.train(streams, config)
    training_data.check_lengths(self.dataset, start.config.max_positions)
    self.abstract, self.create = start_lib.abstract_state(
        start.config, mesh=self.mesh, tx=self.tx,
        rate_factors=config.optimizer.rate_factors)
    self.step_fn = train_step.jit(
        self.abstract, self.mesh, model=self.model, tasks=self.tasks,
        tx=self.tx, accumulation_steps=config.accumulation_steps)
    self.iterator = iter(self.dataset)
    self.validation: list[Any] | None = None
    self.frequencies = training_data.count(streams, config, start)
    self.evaluate = jax.jit(functools.partial(
        train_step.eval_step, model=self.model,
        tasks=start_lib.make_tasks(
            config.tasks, frequencies=self.frequencies)))

  def go(self) -> dict[str, float]:
    """Returns the last validation losses, after all steps."""
    config = self.config
    state = self._first_state()
    first = int(state.step)
    writer, progress = self._begin(state)
    with (contextlib.closing(progress), tracing.ended(),
          progress_lib.Termination() as terminate):
      losses = {} if first else self._validate(state, writer)
      progress.restart_clock()
      for step in range(first + 1, config.num_train_steps + 1):
        state = self._update(state, progress, step, first)
        is_last = step == config.num_train_steps
        # Asked once a step: the signal may come at any moment.
        stops = terminate.is_asked and not is_last
        saves = (is_last or stops
                 or step % config.checkpoint_every_steps == 0)
        validates = is_last or (config.eval_every_steps
                                and step % config.eval_every_steps == 0)
        loss = None
        if saves or validates:
          progress.flush()
        if validates:
          losses = self._validate(state, writer)
          loss = self._deciding_loss(losses)
          # The best is kept, whether or not its turn has come.
          saves = saves or (loss is not None and saved_storage.is_best(
              self.checkpointer.folder, loss))
        if saves:
          # Before the next batch is drawn: the iterator is saved as it is.
          self.checkpointer.save(
              state, self.iterator, config=self.start.config,
              manifest=self.start.manifest, unlogged=progress.unlogged(),
              loss=loss)
        if stops:
          self.checkpointer.wait()
          logging.info('asked to stop: step %d is saved in %s; the same '
                       'command goes on from there', step, self.workdir)
          sys.exit(0)
        if saves or validates:
          progress.restart_clock()
    self.checkpointer.wait()
    return losses

  def _begin(self, state):
    """Shows the header; returns (metrics.jsonl, progress)."""
    config, first = self.config, int(state.step)
    if jax.process_index() == 0:
      summary.show(summary.training_rows(
          config, self.start, state, self.mesh, self.workdir))
    writer = metrics_lib.Writer(self.workdir, start_step=first)
    return writer, progress_lib.Progress(
        writer, start_step=first, num_steps=config.num_train_steps,
        log_every=config.log_every_steps, schedule=self.schedule,
        rows_per_step=sum(t.batch_size for t in config.tasks.values()),
        title=self.workdir.name,
        unlogged=self.checkpointer.unlogged(first),
        max_bad_steps=config.max_bad_steps,
        peak_share=plan_step.peak_seconds(config, self.mesh))

  def _update(self, state, progress, step: int, first: int):
    """Returns the state after one step, which the device may still work on."""
    with tracing.step(self.workdir, step - first, self.config.profile_steps):
      with tracing.part('read'):
        rows = training_data.take(self.iterator)
        batches = sharding.put_rows(self.mesh, rows)
      # What the step reads is on the devices: nothing moves by accident.
      with jax.transfer_guard('disallow'):
        state, metrics = sharding.settle(
            self.step_fn(state, batches, self.step_key))
      progress.submit(step, metrics, rows)
    return state

  def _first_state(self):
    """Returns the state on the mesh: of the newest checkpoint, or new."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
    state = self.checkpointer.restore(self.abstract, self.iterator)
    if state is None:
      params = sharding.settle(start_lib.initial_params(
          self.start, self.config, self.mesh, self.init_key))
      if self.config.fit_first_values:
        params = self._fit_first_values(params)
      state = jax.jit(self.create, out_shardings=shardings, donate_argnums=0)(
          params)
    return sharding.settle(jax.device_put(state, shardings))

  def _fit_first_values(self, params):
    """Returns params with the heads fitted to the training data."""
    # An iterator of its own: the run's is not moved.
    source = iter(self.dataset)
    batches = [sharding.put_rows(self.mesh, training_data.take(source))
               for _ in range(_FITTING_BATCHES)]
    return first_values.fit(
        self.model, params, batches, self.frequencies,
        jax.random.fold_in(self.init_key, 1))

  def _validate(self, state, writer) -> dict[str, float]:
    """Writes and returns 'validation/task/metric' on the validation split."""
    if not self.config.eval_batches:
      return {}
    if self.validation is None:
      source = training_data.validation(self.config, self.start.languages)
      self.validation = list(map(training_data.to_numpy, source))
    params, sums = state.all_params(), {}
    for index, batches in enumerate(self.validation):
      # The same masks every time, and for every seed of training.
      key = jax.random.fold_in(jax.random.key(0), index)
      metrics = jax.device_get(self.evaluate(
          params, sharding.put_rows(self.mesh, batches), key))
      sums = {name: sums[name] + value if sums else value
              for name, value in metrics.items()}
    losses = {f'validation/{name}': float(mean.compute())
              for name, mean in sums.items()}
    writer.write(int(state.step), losses)
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
