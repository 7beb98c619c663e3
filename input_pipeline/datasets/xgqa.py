"""xGQA of IGLUE, and GQA: questions about a picture, in eight languages.

`--raw_dir` is the repository or its `datasets/`, with `xGQA/annotations/
few_shot/<language>/{dev,test,train_<k>}.json`, GQA's own
`{train,val}_balanced_questions.json`, and `trainval_ans2label.json` (or `.pkl`,
of which nothing is executed): the answers that there are to choose from, in
English for all languages. One that is not among them is never right. IGLUE's
scores are those of `few_shot/<language>/test.json`, 9,666 questions.
"""

from collections.abc import Iterator, Sequence
import functools
import re

from input_pipeline import builder
from input_pipeline import errors
from input_pipeline import text_files
from input_pipeline.datasets import _labelled
from input_pipeline.weights import pickles

_KEYS = ('question', 'imageId', 'answer')
_GQA = re.compile(r'(?P<split>train|val)_balanced_questions\.json(?:\.gz)?')
_ANSWERS = 'trainval_ans2label'


class Builder(_labelled.Builder):
  """Pictures of GQA with questions, whose classes are answers."""
  # There are some; which ones, the file of answers says.
  labels: Sequence[str] = ('',)

  def __init__(self, *, options: builder.Options, **kwargs):
    super().__init__(options=options, **kwargs)
    self.labels = tuple(self._answers)

  def items(self):
    return self.gather_rows(self._rows())

  @functools.cached_property
  def _answers(self) -> dict[str, int]:
    """{answer: its number}, in the order of the numbers."""
    found = (text_files.files(self.folder, f'{_ANSWERS}.json')
             or text_files.files(self.folder, f'{_ANSWERS}.pkl'))
    if not found:
      raise errors.UserError(f'{self.folder} has no {_ANSWERS}.json or .pkl')
    answers = (text_files.read_json(found[0]) if '.json' in found[0].name
               else pickles.loads(found[0].read_bytes()))
    # A number as a string would be no label, and another order.
    if not isinstance(answers, dict) or sorted(
        map(repr, answers.values())) != sorted(map(repr, range(len(answers)))):
      raise errors.UserError(
          f'{found[0]}: allowed: an object of answers, numbered from 0')
    return dict(sorted(answers.items(), key=lambda pair: pair[1]))

  def _rows(self) -> Iterator[_labelled.Row]:
    for path in text_files.files(self.folder, '*.json'):
      if match := _GQA.fullmatch(path.name):
        split, code = _labelled.split_of(match['split']), 'en'
      elif path.parent.parent.name == 'few_shot':
        split = _labelled.split_of(path.name.partition('.')[0])
        code = path.parent.name
      else:
        continue
      language = split and self.language(code, path)
      for number, row in text_files.read_json(path).items() if language else ():
        where = f'{path}, {number}'
        text_files.check_keys(row, _KEYS, where)
        yield _labelled.Row(split, (f'{row["imageId"]}.jpg',), language,
                            _labelled.text_of(row['question'], where),
                            self._answers.get(
                                _labelled.text_of(row['answer'], where), -1))
