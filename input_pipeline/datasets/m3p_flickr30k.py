"""Multi30K as microsoft/M3P has it: pickles of captions in en, de, fr and cs.

`--raw_dir` holds `uvl_captions/flicker.<language>.pkl` (sic) and Karpathy's
`dataset_flickr30k.json`, which says where an image belongs.
"""

from input_pipeline.datasets import m3p_coco


class Builder(m3p_coco.Builder):
  """The images of both files."""
  prefix = 'flicker'
  splits = 'dataset_flickr30k.json'
