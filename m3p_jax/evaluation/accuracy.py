"""Accuracy of a checkpoint on a prepared split whose texts have classes."""

from collections.abc import Collection
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline import console
from input_pipeline import errors
from input_pipeline import paths
from m3p_jax import output
from m3p_jax import sharding
from m3p_jax import startup
from m3p_jax.evaluation import engine as engine_lib
from m3p_jax.evaluation import protocols
from m3p_jax.evaluation import provenance
from m3p_jax.evaluation import results
from m3p_jax.evaluation import statistics
from m3p_jax.evaluation import weights as weights_lib


def evaluate(config: ml_collections.ConfigDict, workdir: str | paths.Path,
             *, given: Collection[str] | None = None) -> dict[str, Any]:
  """Evaluates a checkpoint, prints a table and returns the setting's entry.

  Weights: see `weights.source`. Writes WORKDIR/accuracy/DATASET_SPLIT.json.
  `given` are the dotted keys that the command line set; None = called from
  Python.

  Raises:
    UserError: anything in the config that cannot be meant, weights without a
      head for the labels, or a workdir that cannot be written to.
  """
  from input_pipeline import labelled_set  # Reads by TensorFlow.
  workdir, c = paths.of(workdir), config.evaluation
  output.check_writable(workdir, '--workdir')
  weights = weights_lib.load(
      weights_lib.source(config, workdir, given=given),
      model=config.model.to_dict(), given=given or ())
  data_dir = c.data_dir or config.data.data_dir
  weights_lib.check_data(weights, data_dir, c.dataset)
  asked = labelled_set.LabelledSet(
      data_dir, c.dataset, c.split, c.languages, c.max_length,
      text_room=weights.config.text_room)
  labels = startup.read_manifest(data_dir, c.dataset)[0].get('labels', ())
  head = find_head(weights, (c.dataset, c.protocol), len(labels),
                   asked.num_pictures)
  engine = engine_lib.Engine(weights.params, weights.config,
                             batch_size=c.batch_size, dtype=weights.dtype)
  start = time.perf_counter()
  languages = {
      language: _measure(engine, head, asked, text_M, language)
      for language, text_M in asked.texts.items()}
  entry = {
      'step': weights.step, 'checkpoint': str(weights.path), 'head': head,
      'weights': weights_lib.fingerprint_of(weights.path),
      'data': weights_lib.fingerprint_of_data(
          data_dir, c.dataset, has_times=False),
      'seconds': time.perf_counter() - start, 'run': provenance.collect(),
      'labels': len(labels), 'languages': languages}
  setting = c.setting or config.setting
  header = {key: c[key] for key in results.HEADER}
  path = workdir / 'accuracy' / f'{c.dataset}_{c.split}.json'
  results.write(path, results.merge(
      results.read(path), header, protocols.get(c.protocol).kind, setting,
      entry))
  if not jax.process_index():
    _show(header, setting, languages, path)
  return entry


def find_head(weights: weights_lib.Weights, names: Collection[str],
              num_labels: int, num_pictures: int) -> str:
  """Returns the head that answers: one of the names, else the only one.

  Raises:
    UserError: there is none that can, or more than one.
  """
  fits = [head[0] for head in weights.config.heads
          if head[1] == 'classifier' and head[2] >= num_labels
          and head[3] == num_pictures]
  fits = [name for name in fits if name in names] or fits
  if len(fits) != 1:
    there = ', '.join(
        f'{head[0]} ({head[2]} numbers of {head[3]} pictures)'
        for head in weights.config.heads)
    raise errors.UserError(
        f'{weights.path} has the heads '
        f'{there or "of no task with the objective classification"}; allowed: '
        f'one for {num_labels} labels of {num_pictures} pictures, of a task '
        f'called {" or ".join(names)} where there are more')
  return fits[0]


def _measure(engine: engine_lib.Engine, head: str, asked: Any,
             text_M: np.ndarray, title: str) -> dict[str, Any]:
  """Returns the accuracy of one language's texts.

  `most_frequent` is that of the label which most of them have.
  """
  mine = sharding.my_share(len(text_M))
  label_M, found_M = np.zeros((2, len(text_M)), np.int32)
  with console.bar(title if sharding.is_first() else '', len(mine),
                   unit='texts') as bar:
    for begin in range(0, len(mine), engine.batch_size):
      chosen = mine[begin:begin + engine.batch_size]
      batch = asked.read(text_M[chosen])
      label_M[chosen] = batch.extra['label_B']
      found_M[chosen] = engine.classify(batch, head)
      bar.update(len(chosen))
  label_M, found_M = (sharding.gather_shares(x[mine], len(text_M))
                      for x in (label_M, found_M))
  known = label_M[label_M >= 0]
  value, low, high = statistics.accuracy(
      label_M == found_M, asked.item_C[text_M])
  return {'accuracy': value, 'interval': [low, high], 'texts': len(text_M),
          'most_frequent': 100 * np.bincount(known, minlength=1).max()
                           / len(text_M)}


def _show(header, setting, languages, path) -> None:
  print(f'\n{header["dataset"]} ({header["split"]}), protocol '
        f'{header["protocol"]}, setting {setting}, accuracy in per cent:\n')
  for name, one in languages.items():
    low, high = one['interval']
    print(f'{name:6}{one["accuracy"]:6.1f}  ({low:.1f} to {high:.1f}), '
          f'{one["texts"]:,} texts; the most frequent label: '
          f'{one["most_frequent"]:.1f}')
  print(f'\nwritten to {path}')
