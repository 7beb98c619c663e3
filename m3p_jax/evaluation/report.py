"""report.html of a workdir, in one file that needs no network.

python -m m3p_jax.evaluation.report --workdir=DIR rebuilds it from
retrieval*.json, ranks/, examples.json, attention.json, metrics.jsonl,
rerank_choice.json, ablation.md and timings.json, those that there are.
"""

import html
import os
import pathlib
import string
from typing import Any

from absl import app
from absl import flags

from input_pipeline import console
from input_pipeline import errors
from m3p_jax import metrics
from m3p_jax.evaluation import curves
from m3p_jax.evaluation import details
from m3p_jax.evaluation import metric_tables
from m3p_jax.evaluation import query_ranks
from m3p_jax.evaluation import results
from m3p_jax.evaluation import sections

# Stages in the order in which they were run; others follow by name.
STAGES = ('warm_start', 'pretrain', 'en', 'all')
_TEMPLATE = pathlib.Path(__file__).with_name('report.html.tmpl')


def write(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes WORKDIR/report.html whole or not at all, and returns its path.

  Raises:
    UserError: there are no results yet, or one of the files is broken.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / 'report.html'
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  draft.write_text(build(workdir), encoding='utf-8')
  os.replace(draft, path)
  return path


def build(workdir: pathlib.Path) -> str:
  """Returns the report as HTML."""
  named, *others = _result_files(workdir)
  files = list(named.values())
  ranks = {row: query_ranks.load(path, setting) for row, (path, setting)
           in zip(sections.rows_of(files), (
               (path, setting) for path, content in named.items()
               for setting in content['settings']), strict=True)}
  examples = results.read(workdir / 'examples.json')
  setting = list(files[0]['settings'])[-1]
  ablation = workdir / 'ablation.md'
  parts = (
      sections.overview(files),
      sections.by_language(files),
      *(sections.overview(list(one.values())) for one in others),
      curves.recall(ranks),
      curves.consistency(sections.rows_of(files)),
      details.examples(examples, setting),
      details.mistakes(examples, setting),
      details.attention(results.read(workdir / 'attention.json')),
      curves.two_stage(files),
      details.reranking(results.read(workdir / 'rerank_choice.json')),
      sections.losses(_runs(workdir)),
      *(metric_tables.section(list(one.values())) for one in (named, *others)),
      details.ablation(ablation.read_text(encoding='utf-8')
                       if ablation.exists() else ''),
      details.facts(files[0], results.read(workdir / 'timings.json')))
  dataset = html.escape(files[0]['dataset'].replace('_', ' ').title())
  return string.Template(_TEMPLATE.read_text(encoding='utf-8')).substitute(
      title=f'M3P on {dataset}: pictures found in {_num_languages(files)} '
      f'language{"s"[:_num_languages(files) > 1]}',
      subtitle='One Transformer for pictures and text, pre-trained on '
      'captions with words switched into other languages, searched in '
      'languages it saw and languages it did not. Mean recall, per cent:',
      figures=sections.figures(files), sections='\n'.join(parts))


def _num_languages(files) -> int:
  return len({name for content in files
              for cell in content['settings'].values()
              for name in cell['languages']})


def _result_files(workdir: pathlib.Path,
                  ) -> list[dict[pathlib.Path, dict[str, Any]]]:
  """Returns the results of each test set by path, retrieval.json's first.

  Raises:
    UserError: there are none.
  """
  paths = [workdir / 'retrieval.json',
           *sorted(workdir.glob('retrieval_*.json'))]
  found: dict[tuple[str, ...], dict[pathlib.Path, dict[str, Any]]] = {}
  for path in paths:
    if content := results.read(path):
      found.setdefault(tuple(content[key] for key in results.HEADER), {})[
          path] = content
  if not found:
    raise errors.UserError(
        f'{workdir}: no retrieval.json; evaluate first (python main.py '
        f'--mode=evaluate --workdir={workdir})')
  return list(found.values())


def _runs(workdir: pathlib.Path) -> dict[str, list[dict[str, float]]]:
  """Returns {stage: lines of its metrics.jsonl}, the workdir's own first."""
  folders = sorted(
      (path.parent for path in workdir.glob('*/metrics.jsonl')),
      key=lambda path: (STAGES.index(path.name) if path.name in STAGES
                        else len(STAGES), path.name))
  runs = {path.name: metrics.read(path / 'metrics.jsonl') for path in folders}
  if (workdir / 'metrics.jsonl').exists():
    runs = {workdir.absolute().name: metrics.read(
        workdir / 'metrics.jsonl')} | runs
  return runs


def _main() -> None:
  # Defined here: main.py and the recipes have a flag of that name too.
  workdir = flags.DEFINE_string(
      'workdir', None, 'Folder of the run whose report is rebuilt.',
      required=True)

  def main(argv):
    if len(argv) > 1:
      raise errors.UserError(f'unexpected argument {argv[1]!r}')
    print(write(workdir.value))

  app.run(console.one_line(main),
          flags_parser=console.one_line(console.parse_flags))


if __name__ == '__main__':
  _main()
