"""PyTorch's match logits of all pairs, in padded batches.

In bfloat16 where the machine has products of it, else in float32, as ours are.
"""

import functools

import torch

from benchmarks import contest
from benchmarks import problems
from benchmarks.against_pytorch import model as model_lib
from benchmarks.against_pytorch import training
from m3p_jax.model import config as model_config


def variants(size: str) -> dict[str, contest.Run]:
  """Returns {how captions are padded: scoring of all pairs}.

  Args:
    size: key of `problems.PROBLEMS`.
  """
  problem = problems.PROBLEMS[size]
  torch.manual_seed(0)
  model = model_lib.M3P(problem).eval()
  ids_CL, mask_CL = map(
      torch.from_numpy, problems.make_captions(problem.score_rows))
  ids_CL = ids_CL.long()
  regions = training.as_tensors(problems.make_rows(
      problem, problem.score_pictures, seed=1))
  longest = int(mask_CL.sum(1).max())
  fast_dtype = model_config.fast_dtype('cpu')

  @torch.inference_mode()
  @torch.autocast('cpu', torch.bfloat16, enabled=fast_dtype == 'bfloat16')
  def score(length):
    for number in range(problem.score_pictures):
      model.match_logits(model.encode(
          ids_CL[:, :length], mask_CL[:, :length],
          *(regions[name][number].expand(len(ids_CL), -1, -1)
            for name in ('features_BRF', 'boxes_BRG'))))

  return {
      f'padded to {problems.RELEASE_LENGTH}': functools.partial(
          score, problems.RELEASE_LENGTH),
      'padded to the longest': functools.partial(score, longest)}
