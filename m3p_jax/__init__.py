"""M3P in JAX: multilingual multimodal pre-training, retrieval and search."""

from importlib import metadata
import pathlib
import tomllib


def _version() -> str:
  """Returns the version in pyproject.toml: the checkout's, else the wheel's."""
  pyproject = pathlib.Path(__file__).parent.parent / 'pyproject.toml'
  if pyproject.is_file():
    return tomllib.loads(pyproject.read_text())['project']['version']
  return metadata.version('m3p_jax')


__version__ = _version()
