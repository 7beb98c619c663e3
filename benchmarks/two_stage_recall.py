"""What two stages lose in recall against the exact engine, on a real gallery.

python -m benchmarks.two_stage_recall --checkpoint=runs/quickstart
       [--data_dir=data --pictures=2000 --captions=60 --languages=en]

The queries are Tux Paint's test captions and pictures, the gallery its test
pictures and so many of openclipart's that there are `--pictures`. Every pair
goes through the joint encoder once, which takes minutes; from its logits the
recall of each number of candidates is computed, as `--mode=evaluate` does in
mode joint; the last one is the exact engine. Prints a table.
"""

from collections.abc import Sequence

from absl import flags
import jax
import numpy as np

from input_pipeline import errors
from input_pipeline import evaluation_set
from m3p_jax import batch as batch_lib
from m3p_jax.evaluation import retrieval
from m3p_jax.evaluation import weights as weights_lib


def load(data_dir: str, pictures: int, captions: int,
         languages: Sequence[str]) -> evaluation_set.RetrievalSet:
  """Returns Tux Paint's test split among pictures that nobody asks for.

  Args:
    data_dir: with both datasets, prepared with the same features.
    pictures: in the gallery.
    captions: most of each language, the first.
    languages: of the captions.

  Raises:
    UserError: a dataset or a language is not there, or there are not so many
      pictures.
  """
  asked, others = (evaluation_set.load(data_dir, *source)
                   for source in (('tux_paint', 'test', languages),
                                  ('openclipart', 'train', ('all',))))
  found, more = len(asked.image_ids), len(others.image_ids)
  if not found <= pictures <= found + more:
    raise errors.UserError(
        f'--pictures is {pictures}; allowed: {found} to {found + more}')
  rest = slice(pictures - found)
  return evaluation_set.RetrievalSet(
      asked.image_ids + others.image_ids[rest],
      asked.groups + others.groups[rest],
      join(asked.regions, jax.tree.map(lambda x: x[rest], others.regions)),
      {name: evaluation_set.CaptionSet(
          one.texts[:captions], one.token_ids_NL[:captions],
          one.text_mask_NL[:captions], one.groups[:captions])
       for name, one in asked.captions.items()})


def join(*parts: batch_lib.Regions) -> batch_lib.Regions:
  """Returns the pictures of all parts, padded to the most regions."""
  num_regions = max(part.mask_BR.shape[1] for part in parts)

  def pad(array):
    if array.ndim == 1:
      return array
    return np.pad(array, [(0, 0), (0, num_regions - array.shape[1])]
                  + [(0, 0)] * (array.ndim - 2))

  return jax.tree.map(
      lambda *arrays: np.concatenate([pad(array) for array in arrays]), *parts)


def main(argv: Sequence[str]) -> None:
  """Prints what each number of candidates costs and gives."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; see --help')
  args = flags.FLAGS
  weights = weights_lib.load(args.checkpoint)
  for name in ('tux_paint', 'openclipart'):
    weights_lib.check_data(weights, args.data_dir, name)
  gallery = load(args.data_dir, args.pictures, args.captions, args.languages)
  outcome = retrieval.run(
      weights.params, weights.config, gallery, list(gallery.captions),
      mode='joint',
      language_ids=weights.language_ids)
  captions = sum(len(one.texts) for one in gallery.captions.values())
  print(f'{captions:,} captions, {len(gallery.image_ids):,} pictures, '
        f'{outcome.pairs_scored:,} pairs in {outcome.seconds:.0f} s; '
        f'{weights.path}\n\n'
        '| candidates | pairs | mean recall | first as the exact engine |\n'
        '|---|---|---|---|')
  for point in outcome.curve:
    print(f'| {point["top_k"]:,} | {point["pairs_share"]:.2f} % | '
          f'{point["mean_recall"]:.1f} | {point["agreement"]["first"]:.1f} % |')


if __name__ == '__main__':
  flags.DEFINE_string('checkpoint', 'runs/quickstart',
                      'Checkpoint, or a workdir: its newest.')
  flags.DEFINE_string('data_dir', 'data', 'Folder of prepared datasets.')
  flags.DEFINE_integer('pictures', 2000, 'In the gallery.', lower_bound=2)
  flags.DEFINE_integer('captions', 60, 'Most of a language.', lower_bound=1)
  flags.DEFINE_list('languages', ['en'], 'Of the captions.')
  errors.run_main(main)
