"""The kinds of rows that tasks read, and the data that each task's come from.

What of the data is a task's own stands in its `data`; all else is what the
config says for its kind.
"""

import json
from typing import Any

import ml_collections

ConfigDict = ml_collections.ConfigDict
# Kind → the section of `config.data` that it takes its values from.
#   text: sentences.
#   image_text: a picture with a caption.
#   parallel: two texts that say the same in two languages, with their picture
#     where there is one.
#   labelled: a picture with a text and the number of its class.
#   pair: two pictures with a text about both, and the number of its class.
KINDS = {'text': 'text', 'image_text': 'image_text', 'parallel': 'image_text',
         'labelled': 'image_text', 'pair': 'image_text'}


def data_of(data_config: ConfigDict, task: Any) -> ConfigDict:
  """Returns the section of `config.data` that a task reads, its own in it."""
  found = data_config[KINDS[task.stream]].copy_and_resolve_references()
  if own := task.get('data'):
    found.update(own)
  return found


def key(task: Any) -> str:
  """Returns what is equal for tasks that read the same rows."""
  own = task.get('data')
  return f'{task.stream} {json.dumps(own.to_dict(), sort_keys=True)}' if (
      own) else task.stream


def num_pictures(task: Any) -> int:
  """Returns how many pictures a row of the task has at most."""
  return {'text': 0, 'pair': 2}.get(task.stream, 1)
