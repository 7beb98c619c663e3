"""Our side of the contests: the functions that training and search run."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import contest
from benchmarks import problems
from configs import base
from m3p_jax import batch as batch_lib
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax import train_step
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import exact
from m3p_jax.model import config as model_config
from m3p_jax.model import m3p


def training(size: str, dtype: str = 'auto') -> dict[str, contest.Run]:
  """Returns {'training step': one step of `main.py`'s loop}, and 'compile'.

  Args:
    size: key of `problems.PROBLEMS`.
    dtype: of activations.
  """
  problem = problems.PROBLEMS[size]
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  batches, key = make_batches(problem), jax.random.key(0)
  state, step_fn = begin(make_config(problem, dtype), mesh)

  def compile_step():
    nonlocal step_fn
    with jax.set_mesh(mesh):
      step_fn = step_fn.lower(
          state, sharding.abstract_rows(mesh, batches), key).compile()
    jax.block_until_ready(state)

  def step():
    nonlocal state
    with jax.set_mesh(mesh):
      state, metrics = step_fn(state, sharding.put_rows(mesh, batches), key)
    return {'loss': float(metrics['train/loss'].compute())}

  return {'training step': step, 'compile': compile_step}


def make_config(problem: problems.Problem,
                dtype: str = 'auto') -> ml_collections.ConfigDict:
  """Returns the config of a training step."""
  config = base.get_config()
  config.model.update(problem.model, dtype=dtype)
  config.optimizer.weight_decay = 0.01
  config.optimizer.schedule = 'constant'
  config.tasks = task_configs(problem)
  # What plans read.
  config.data.text.max_length = config.data.image_text.max_length = (
      problem.text_length)
  config.evaluation.batch_size = config.plan.captions = problem.score_rows
  config.plan.pictures = problem.score_pictures
  config.plan.num_regions = problem.num_regions
  return config


def make_batches(problem: problems.Problem) -> dict[str, batch_lib.Batch]:
  """Returns each task's rows."""
  return {
      name: as_batch(problems.make_rows(problem, problem.task_rows, seed=i),
                     with_regions=name != 'xmlm')
      for i, name in enumerate(problems.TASKS)}


def task_configs(problem: problems.Problem) -> ml_collections.ConfigDict:
  """Returns the four objectives of pre-training, as `config.tasks`."""
  return ml_collections.ConfigDict({
      name: base.task_config(
          objective, 'text' if name == 'xmlm' else 'image_text',
          problem.task_rows)
      for name, objective in (
          ('mc_mlm', 'masked_lm'), ('mc_mrm', 'masked_region'),
          ('mc_vlm', 'matching'), ('xmlm', 'masked_lm'))})


def begin(config: ml_collections.ConfigDict, mesh) -> tuple[Any, Any]:
  """Returns (first state, train step), as `m3p_jax.train` makes them."""
  geometry = startup.model_config(config)
  _, tx = startup.make_optimizer(config)
  abstract, create = startup.abstract_state(
      geometry, mesh=mesh, tx=tx, rate_factors=())
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  step_fn = train_step.jit(
      abstract, mesh,
      model=m3p.M3P(geometry, startup.model_options(config)),
      tasks=startup.make_tasks(config.tasks), tx=tx)
  start = startup.Start(geometry, ('en',), {}, 'fresh')
  with jax.set_mesh(mesh):
    state = jax.jit(create, out_shardings=shardings, donate_argnums=0)(
        startup.initial_params(start, config, mesh, jax.random.key(0)))
  return state, step_fn


def as_batch(rows: problems.Rows, *, with_regions: bool = True,
             ) -> batch_lib.Batch:
  """Returns rows as the batch of a task."""
  count = len(rows.token_ids_BL)
  regions = batch_lib.Regions(
      image_id_B=jnp.arange(count, dtype=jnp.int32),
      features_BRF=rows.features_BRF, boxes_BRG=rows.boxes_BRG,
      class_ids_BR=rows.class_ids_BR,
      mask_BR=jnp.ones(rows.class_ids_BR.shape, bool))
  return batch_lib.Batch(
      rows.token_ids_BL, rows.text_mask_BL, jnp.zeros(count, jnp.int32),
      regions if with_regions else None)


def scoring(size: str) -> dict[str, contest.Run]:
  """Returns {'exact scoring': the exact engine on all pairs}.

  Args:
    size: key of `problems.PROBLEMS`.
  """
  problem = problems.PROBLEMS[size]
  engine = make_engine(problem)
  regions = as_batch(problems.make_rows(
      problem, problem.score_pictures, seed=1)).regions
  regions = jax.tree.map(np.asarray, regions)
  question = exact.Question(
      engine_lib.Texts(*problems.make_captions(problem.score_rows), None),
      np.arange(problem.score_pictures))

  def score():
    exact.scores(engine, regions, {'': question})

  return {'exact scoring': score}


def make_engine(problem: problems.Problem) -> engine_lib.Engine:
  """Returns an engine with fresh parameters."""
  geometry = model_config.geometry(problem.model)
  params = jax.jit(lambda key: nn.unbox(m3p.init_params(
      geometry, key)))(jax.random.key(0))
  return engine_lib.Engine(params, geometry, batch_size=problem.score_rows)
