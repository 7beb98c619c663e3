"""The one pytree that flows from the input pipeline into the model.

Letters: B rows, L text length, R regions, F region feature, G=5 box.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Regions(NamedTuple):
  """The regions of B pictures; the same type for tf.data, NumPy and JAX.

  Attributes:
    image_id_B: int32 [B], hash of the picture's group. Pictures that share
      their right answers share a group, and rows with equal ids are never
      each other's negatives.
    features_BRF: float16 or float32 [B, R, F], un-normalised.
    boxes_BRG: float32 [B, R, 5], un-normalised: x1/w, y1/h, x2/w, y2/h,
      area/(w·h).
    class_ids_BR: int32 [B, R], detector class + 1; 0 is background or padding
      and is never masked.
    mask_BR: bool [B, R], False where a region is padding.
  """
  image_id_B: Any
  features_BRF: Any
  boxes_BRG: Any
  class_ids_BR: Any
  mask_BR: Any


class Batch(NamedTuple):
  """B rows of text, each with its picture's regions where there is one.

  Attributes:
    token_ids_BL: int32 [B, L], `<s>` first, `</s>` last, then `<pad>` (1).
    text_mask_BL: bool [B, L], False at padding.
    language_B: int32 [B], index in the checkpoint's `languages`.
    regions: the rows' pictures, or None for a batch of text alone.
    extra: what the stream's kind has beside, rows in front, by name:
      'label_B', int32 numbers of classes, -1 where unknown; 'second', Regions
      of each row's second picture; 'source_ids_BL', 'source_mask_BL' and
      'source_language_B' of a text that says the same in another language.
  """
  token_ids_BL: Any
  text_mask_BL: Any
  language_B: Any
  regions: Regions | None = None
  extra: Mapping[str, Any] = {}

  @property
  def num_regions(self) -> int:
    """Where the text begins in a row that is read with its regions."""
    return 0 if self.regions is None else self.regions.mask_BR.shape[1]
