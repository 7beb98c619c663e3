"""Makes a dataset's shards with Apache Beam: on many machines, by flags.

A worker makes whole shards, with the same code as `prepare` does alone: equal
files, and a run that broke off goes on from the shards that are there. The
records, which may be terabytes, never travel between workers; `--data_dir` and
the pictures have to be on storage that all of them see.
"""

from collections.abc import Iterable
import pathlib
from typing import Any

import apache_beam as beam
from apache_beam.options import pipeline_options
import tensorflow_datasets as tfds

from input_pipeline import shards


class _MakeShard(beam.DoFn):
  """Makes one shard after the other, with a builder of its own."""

  def __init__(self, builder_class: type, options: Any, data_dir: str):
    self._builder_class = builder_class
    self._options = options
    self._data_dir = data_dir
    self._builder: Any = None

  def setup(self):
    self._builder = self._builder_class(
        options=self._options, data_dir=self._data_dir)

  def process(self, plan: str) -> Iterable[str]:
    self._builder.make_planned(pathlib.Path(plan))
    yield plan


def parse_options(options: str) -> tfds.download.DownloadConfig:
  """Returns options as 'runner=DataflowRunner,project=NAME', as TFDS has them.
  """
  return tfds.download.DownloadConfig(
      beam_options=pipeline_options.PipelineOptions(
          flags=[f'--{option}' for option in options.split(',')]))


def write(builder: Any, items: Iterable[Any],
          config: tfds.download.DownloadConfig) -> None:
  """Makes the shards that are missing; `items` are those of all splits."""
  folder = builder.options.shards
  plans = [str(builder.save_plan(shard))
           for shard in builder.cut(items)
           if not shards.find_report(folder, shard)]
  with beam.Pipeline(options=config.beam_options) as pipeline:
    _ = (pipeline
         | beam.Create(plans)
         | beam.Reshuffle()
         | beam.ParDo(_MakeShard(
             type(builder), builder.options, str(builder.data_dir_root))))
