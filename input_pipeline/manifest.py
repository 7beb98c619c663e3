"""What a prepared dataset says of itself, and whether enough of it is there."""

from collections import Counter
from collections.abc import Mapping
import importlib.metadata
from typing import Any

from input_pipeline import builder as builder_lib
from input_pipeline import errors
from input_pipeline import extracted


def describe(builder: Any, dataset: str, options: Mapping[str, Any],
             ) -> dict[str, Any]:
  """Returns how the records of a builder were made, and of what."""
  reports = builder.reports.values()
  counts = {name: builder.reports[name].num_used
            for name in builder.info.splits}
  manifest = {
      'dataset': dataset, 'options': options,
      'tokenizer': {'source': builder.tokenizer.source,
                    'sha256': builder.tokenizer.sha256,
                    'vocab_size': builder.tokenizer.vocab_size},
      'languages': sorted({language for report in reports
                           for language in report.languages}),
      'counts': counts,
      # By --limit, or since they cannot be used.
      'left_out': {split: total - counts.get(split, 0)
                   for split, total in builder.totals.items()},
      'skipped': dict(sorted(Counter(
          reason for report in reports
          for _, reason in report.skipped).items())),
      **builder.notes}
  if isinstance(builder, builder_lib.ImageTextBuilder):
    if builder.labels:
      manifest['labels'] = list(builder.labels)
    manifest['feature_extractor'] = builder.extractor.manifest
    manifest['max_class_id'] = max(
        [0, *(report.max_class_id for report in reports)])
    manifest['box_convention'] = 'x1, y1, x2, y2 in pixels of the picture'
    if isinstance(builder.extractor, extracted.ExtractedRegions):
      manifest['features'] = builder.extractor.report()
    manifest['normalisation'] = 'none: the model L2-normalises'
    manifest['storage'] = builder.options.storage
    manifest['bytes_per_image'] = round(
        builder.info.dataset_size / max(1, sum(counts.values())))
  manifest['versions'] = {
      name: importlib.metadata.version(name)
      for name in ('jax', 'numpy', 'pillow', 'tensorflow-datasets')}
  return manifest


def check_share(builder: Any, found: Mapping[str, Any],
                max_bad: float) -> None:
  """Raises UserError where too many of a user's own items are unusable."""
  skipped = [row for report in builder.reports.values()
             for row in report.skipped]
  if builder.options.languages:
    # Not bad but unwanted: it has captions in other languages only.
    skipped = [row for row in skipped if row[1] != 'no caption']
  total = len(skipped) + sum(found['counts'].values())
  is_own = builder.options.raw_dir or builder.options.features_format
  if is_own and len(skipped) > max_bad * total:
    reasons = {reason: where for where, reason in reversed(skipped)}
    raise errors.UserError(
        f'{builder.name}: {len(skipped)} of {total} items cannot be used, more '
        f'than --max_bad={max_bad:g} allows: {found["skipped"]}; the first of '
        'each: ' + '; '.join(
            f'{reason}: {where}' for reason, where in reasons.items()))
