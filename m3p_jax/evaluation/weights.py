"""The weights that evaluation and search use, and what they were made for."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import ml_collections

from input_pipeline import copies
from input_pipeline import errors
from input_pipeline import fingerprint
from input_pipeline import paths
from m3p_jax import checkpoint
from m3p_jax import startup
from m3p_jax.model import config as model_config_lib

# Objectives that train the match head.
_MATCHING = {'matching', 'retrieval'}


class Weights(NamedTuple):
  """One checkpoint in memory."""
  params: Any
  config: model_config_lib.ModelConfig
  # Tokenizer, feature extractor, normalisation, languages.
  manifest: dict[str, Any]
  path: paths.Path
  step: int | None  # None where the folder's name is no number.
  dtype: str = 'auto'  # Of activations, as `config.model.dtype`.

  @property
  def language_ids(self) -> dict[str, int]:
    """{language: its row in the model's language table}."""
    return {name: index for index, name
            in enumerate(self.manifest.get('languages', ()))}

  @property
  def can_match(self) -> bool:
    """Returns whether the match head was trained, as far as is known."""
    objectives = self.manifest.get('objectives')
    return objectives is None or bool(_MATCHING & set(objectives))

  @property
  def can_write(self) -> bool:
    """Returns whether the decoder was trained, as far as is known."""
    objectives = self.manifest.get('objectives')
    return self.config.decoder and (
        objectives is None or 'captioning' in objectives)


def source(config: ml_collections.ConfigDict, workdir: paths.Path, *,
           given: Collection[str] | None = None) -> str | paths.Path:
  """Returns where weights come from: init_from if given, else the workdir.

  A file's `init_from` is what training started from, so from the command line
  it counts only where it was typed, or where the workdir has no checkpoint.
  'e5' names no checkpoint. `given` are the command line's dotted keys; None =
  called from Python, where `config.init_from` is meant as it is.
  """
  init_from = '' if config.init_from == 'e5' else config.init_from
  has_own = bool(checkpoint.steps(workdir / 'checkpoints'))
  if given is not None and 'init_from' not in given and has_own:
    return workdir
  return init_from or workdir


def load(source: str | paths.Path, *,
         model: Mapping[str, Any] | None = None,
         given: Collection[str] = ()) -> Weights:
  """Returns the newest good checkpoint of a workdir, folder or path.

  Args:
    source: a checkpoint, a `checkpoints/` folder or a workdir.
    model: `config.model`; decides the number format.
    given: dotted keys of the command line: a model key among them that
      differs from the checkpoint's is an error.

  Raises:
    UserError: no checkpoint, none that can be read, or another geometry.
  """
  path, params, config, manifest = checkpoint.load_newest(source)
  if model is not None:
    _check_given(config, model, path, given)
  step = int(path.name) if path.name.isdecimal() else None
  return Weights(params, config, manifest, path, step,
                 model['dtype'] if model else 'auto')


def _check_given(config: model_config_lib.ModelConfig,
                 model: Mapping[str, Any], path: paths.Path,
                 given: Collection[str]) -> None:
  for key in given:
    section, _, name = key.partition('.')
    if section != 'model' or name in model_config_lib.OPTION_KEYS:
      continue
    if model[name] != getattr(config, name):
      raise errors.UserError(
          f'config.model.{name} is {model[name]}, but {getattr(config, name)} '
          f'in {path}: leave it out')


def fingerprint_of(path: paths.Path) -> str:
  """Returns what tells a checkpoint's weights from others at the same path.

  A copy of the checkpoint has the same: Orbax uses no file name twice.
  """
  return fingerprint.of_path(
      path, skip=('optimizer', 'data'), has_times=False)


def fingerprint_of_data(data_dir: str | paths.Path, dataset: str, *,
                        has_times: bool = True) -> str:
  """Returns the digest of a prepared dataset; see `fingerprint.of_path`."""
  return fingerprint.of_path(paths.of(data_dir) / dataset,
                             skip=copies.FOLDERS, has_times=has_times)


def check_data(weights: Weights, data_dir: str | paths.Path,
               dataset: str) -> None:
  """Checks that a prepared dataset is what the weights were made to read.

  Raises:
    UserError: it is not prepared, or with another tokenizer or extractor, or
      it holds what the model has no room for.
  """
  content, path = startup.read_manifest(data_dir, dataset)
  startup.check_inputs(content, weights.manifest, path, weights.path)
  startup.check_fit(weights.config, content, path, weights.path)
