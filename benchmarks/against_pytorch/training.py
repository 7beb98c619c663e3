"""PyTorch's training step: each task's loss and gradient, clipping, AdamW."""

import functools

import torch

from benchmarks import contest
from benchmarks import problems
from benchmarks.against_pytorch import model as model_lib
from m3p_jax.model import config as model_config

CLIP_NORM = 5.0


def variants(size: str, names: tuple[str, ...] = (),
             ) -> dict[str, contest.Run]:
  """Returns {variant: one training step}; they share one model.

  bfloat16 is autocast's, and `compiled` torch.compile's. Each task is taken
  backward by itself, which frees its activations.

  Args:
    size: key of `problems.PROBLEMS`.
    names: those wanted; none = all that this machine is made for: without
      bfloat16 products of its own, a step in it takes many times as long.
  """
  fast = model_config.fast_dtype('cpu')
  names = names or tuple(dict.fromkeys(
      ('eager float32', f'eager {fast}', f'compiled {fast}')))
  problem = problems.PROBLEMS[size]
  torch.manual_seed(0)
  model = model_lib.M3P(problem).train()
  kernels = [p for p in model.parameters() if p.ndim == 2]
  others = [p for p in model.parameters() if p.ndim != 2]
  optimizer = torch.optim.AdamW(
      [dict(params=kernels, weight_decay=0.01),
       dict(params=others, weight_decay=0.0)],
      lr=1e-4, betas=(0.9, 0.98), eps=1e-8, fused=True)
  batches = {
      task: as_tensors(problems.make_rows(problem, problem.task_rows, seed=i))
      for i, task in enumerate(problems.TASKS)}

  def step(losses, dtype):
    for task, loss in losses.items():
      with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        value = loss(model, batches[task])
      value.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

  ways = {'eager': model_lib.LOSSES, 'compiled': {
      task: torch.compile(loss) for task, loss in model_lib.LOSSES.items()}}
  return {name: functools.partial(
      step, ways[name.split()[0]], getattr(torch, name.split()[1]))
          for name in names}


def as_tensors(rows: problems.Rows) -> dict[str, torch.Tensor]:
  """Returns rows as tensors; ids as int64, which PyTorch indexes by."""
  return {name: torch.from_numpy(value).long() if value.dtype.kind == 'i'
          else torch.from_numpy(value)
          for name, value in rows._asdict().items()}
