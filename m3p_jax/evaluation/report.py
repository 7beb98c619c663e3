"""report.html of a workdir, in one file that needs no network.

python -m m3p_jax.evaluation.report --workdir=DIR rebuilds it from
retrieval*.json, examples.json, metrics.jsonl, rerank_choice.json,
ablation.md and timings.json, those that there are.
"""

import html
import os
import pathlib
import string

from absl import app
from absl import flags

from input_pipeline import errors
from m3p_jax import metrics
from m3p_jax.evaluation import details
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
  files = _result_files(workdir)
  ablation = workdir / 'ablation.md'
  parts = (
      sections.overview(files),
      sections.by_language(files),
      details.examples(results.read(workdir / 'examples.json'),
                       list(files[0]['settings'])[-1]),
      details.reranking(results.read(workdir / 'rerank_choice.json')),
      sections.losses(_runs(workdir)),
      details.ablation(ablation.read_text() if ablation.exists() else ''),
      details.facts(files[0], results.read(workdir / 'timings.json')))
  dataset = html.escape(files[0]['dataset'].replace('_', ' ').title())
  return string.Template(_TEMPLATE.read_text(encoding='utf-8')).substitute(
      title=f'M3P on {dataset}: pictures found in '
      f'{_num_languages(files)} languages',
      subtitle='One Transformer for pictures and text, pre-trained on '
      'captions with words switched into other languages, searched in '
      'languages it saw and languages it did not. Mean recall, per cent:',
      figures=sections.figures(files), sections='\n'.join(parts))


def _num_languages(files) -> int:
  return len({name for content in files
              for cell in content['settings'].values()
              for name in cell['languages']})


def _result_files(workdir: pathlib.Path):
  """Returns the contents of retrieval.json and of other modes on its set.

  Raises:
    UserError: there are none.
  """
  main = results.read(workdir / 'retrieval.json')
  others = [results.read(path)
            for path in sorted(workdir.glob('retrieval_*.json'))]
  files = [content for content in (main, *others) if content]
  if not files:
    raise errors.UserError(
        f'{workdir}: no retrieval.json; evaluate first (python main.py '
        f'--mode=evaluate --workdir={workdir})')
  return [content for content in files if all(
      content[key] == files[0][key] for key in results.HEADER)]


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

  app.run(errors.one_line(main),
          flags_parser=errors.one_line(errors.parse_flags))


if __name__ == '__main__':
  _main()
