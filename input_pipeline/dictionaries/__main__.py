"""Builds dictionaries and prints what they hold; see `dictionaries`."""

from collections.abc import Sequence

from absl import flags
import numpy as np

from input_pipeline import console
from input_pipeline import dictionaries
from input_pipeline.dictionaries import readers


def main(argv: Sequence[str]) -> None:
  """Builds what the flags ask for, and prints a line a language."""
  console.check_flags(argv, ())
  args = flags.FLAGS
  if args.coverage:
    # TensorFlow, which building needs not.
    from input_pipeline import code_switch
    *_, keys_W = code_switch.read_english(args.data_dir, args.coverage)
    print('\n'.join(code_switch.coverage_lines(
        dictionaries.folders(args.data_dir), args.languages, keys_W)))
    return
  languages = args.languages or readers.available(args.source, args.path)
  folder = dictionaries.build(
      languages, args.data_dir, source=args.source, path=args.path)
  for language in languages:
    with np.load(folder / f'{language}.npz') as file:
      print(f'{language}  {len(file["keys_K"]):8,} phrases  '
            f'{len(file["id_counts_T"]):8,} translations')


if __name__ == '__main__':
  flags.DEFINE_string('data_dir', 'data', 'Gets dictionaries/SOURCE/.')
  flags.DEFINE_string('source', readers.FREEDICT, ', '.join(readers.SOURCES))
  flags.DEFINE_string('path', '', 'Files of muse, panlex or tsv.')
  flags.DEFINE_string('coverage', '', 'Builds nothing: says what share of the '
                      'words of this prepared set each language has.')
  flags.DEFINE_list('languages', [], 'Targets, as de,fr; default: all useful.')
  console.run_main(main)
