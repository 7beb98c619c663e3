"""IGLUE's WIT: pictures of Wikipedia with their captions.

`--raw_dir` is the repository, its `datasets/wit/`, or `annotations/` in that,
with `{test,train,val}_<language>.jsonl`: rows with `wit_ix` and
`caption_reference_description`. Several images may share a caption: every one
of them is right. Machine-translated copies (`…_gmt.jsonl`) are not read.
"""

import re

from input_pipeline.datasets import iglue_flickr30k


class Builder(iglue_flickr30k.Builder):
  """500 to 1,000 captions in each of eleven languages."""
  places = ('datasets/wit', 'wit')
  pattern = re.compile(
      r'(?P<split>[a-z]+)_(?!\w+_gmt\.)(?P<language>\w+)\.jsonl(\.gz)?')
  keys = ('wit_ix', 'caption_reference_description')
  is_once = False
