"""The folder that a dataset grows in, beside the place it will be put.

`.NAME.partial` holds the finished shards and what they are made of; it stays
when a run is killed, and goes when other options are asked for.
"""

from collections.abc import Mapping
import contextlib
import fcntl
import json
import pathlib
import shutil
from typing import Any

from input_pipeline.building import copies
from input_pipeline.building import shards

SKIPPED = 'skipped.jsonl'
_OPTIONS = 'options.json'


@contextlib.contextmanager
def lock(folder: pathlib.Path):
  """Lets one process at a time prepare a folder; gives whether it waited."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with open(folder.with_name(f'.{folder.name}.lock'), 'w') as file:
    has_waited = False
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      has_waited = True
      fcntl.flock(file, fcntl.LOCK_EX)
    yield has_waited


def begin(folder: pathlib.Path, key: Mapping[str, Any]) -> pathlib.Path:
  """Returns the folder beside `folder` to work in, with what is done already.
  """
  partial = folder.with_name(f'.{folder.name}.partial')
  saved = partial / _OPTIONS
  if not saved.exists() or json.loads(saved.read_text()) != key:
    shutil.rmtree(partial, ignore_errors=True)
  for name in ('shards', *copies.FOLDERS):
    (partial / name).mkdir(parents=True, exist_ok=True)
  # Drafts that a killed run has left, TFDS's and ours.
  shutil.rmtree(partial / folder.name, ignore_errors=True)
  for path in partial.glob('shards/*.draft-*'):
    path.unlink()
  draft = saved.with_suffix('.draft')
  draft.write_text(json.dumps(key))
  draft.rename(saved)
  return partial


def tidy(partial: pathlib.Path, reports: Mapping[str, shards.Report], *,
         has_pictures: bool) -> None:
  """Lists what was left out, and deletes what only making it needed."""
  # Names that are not UTF-8 stay escaped.
  with open(partial / SKIPPED, 'w', encoding='utf-8',
            errors='backslashreplace') as file:
    for split, report in reports.items():
      for item, reason in report.skipped:
        file.write(json.dumps({'split': split, 'item': item, 'reason': reason},
                              ensure_ascii=False) + '\n')
  (partial / _OPTIONS).unlink()
  for name in ('shards', 'downloads',
               *(() if has_pictures else copies.FOLDERS)):
    shutil.rmtree(partial / name, ignore_errors=True)


def replace(folder: pathlib.Path, partial: pathlib.Path) -> None:
  """Puts the finished folder in place; the one before goes last."""
  old = folder.with_name(f'.{folder.name}.old')
  shutil.rmtree(old, ignore_errors=True)
  if folder.exists():
    folder.rename(old)
  partial.rename(folder)
  shutil.rmtree(old, ignore_errors=True)
