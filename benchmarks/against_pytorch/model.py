"""M3P as a PyTorch user would write it: transformers' XLM-R and plain heads.

The same geometry, inputs and losses as ours (tests/test_benchmarks.py moves
our weights over and compares). Letters: B rows, L text length, R regions,
T=R+L, P predictions a row, D width, V vocabulary, C region classes.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.xlm_roberta import configuration_xlm_roberta
from transformers.models.xlm_roberta import modeling_xlm_roberta

from benchmarks import problems

VOCAB_SIZE = 250_002
MASK_ID = 250_001
FIRST_WORD_ID = 4


class M3P(nn.Module):
  """Embeddings, XLM-R's encoder, and the heads of pre-training."""

  def __init__(self, problem: problems.Problem):
    super().__init__()
    m = problem.model
    width = m['width']
    config = configuration_xlm_roberta.XLMRobertaConfig(
        hidden_size=width, num_hidden_layers=m['num_layers'],
        num_attention_heads=m['num_heads'], intermediate_size=m['mlp_width'],
        hidden_dropout_prob=m['dropout'],
        attention_probs_dropout_prob=m['attention_dropout'],
        layer_norm_eps=1e-12, attn_implementation='sdpa')
    self.words = nn.Embedding(VOCAB_SIZE, width)
    self.positions = nn.Embedding(m['max_positions'], width)
    for table in (self.words, self.positions):
      nn.init.normal_(table.weight, std=width ** -0.5)
    self.embedding_norm = nn.LayerNorm(width, eps=1e-12)
    self.dropout = nn.Dropout(m['dropout'])
    self.region_feature = nn.Linear(m['region_feature_dim'], width)
    self.region_box = nn.Linear(5, width)
    self.region_norm = nn.LayerNorm(width, eps=1e-12)
    self.encoder = modeling_xlm_roberta.XLMRobertaEncoder(config)
    self.pooler = nn.Linear(width, width)
    self.match = nn.Linear(width, 1)
    self.token_bias = nn.Parameter(torch.zeros(VOCAB_SIZE))
    self.region_regression = nn.Linear(width, m['region_feature_dim'])
    self.class_dense = nn.Linear(width, width)
    self.class_norm = nn.LayerNorm(width, eps=1e-12)
    self.class_out = nn.Linear(width, m['num_region_classes'])

  def encode(self, ids_BL, text_mask_BL, features_BRF=None, boxes_BRG=None):
    """Returns hidden states [B, T, D]: regions first, where there are any."""
    hidden, mask = self.words(ids_BL), text_mask_BL
    if features_BRF is not None:
      regions_BRD = self.dropout(self.region_norm(
          self.region_feature(F.normalize(features_BRF, dim=-1))
          + self.region_box(F.normalize(boxes_BRG, dim=-1))))
      hidden = torch.cat([regions_BRD, hidden], dim=1)
      mask = torch.cat(
          [torch.ones_like(features_BRF[..., 0], dtype=torch.bool), mask], 1)
    position = torch.arange(hidden.shape[1])
    hidden = self.dropout(self.embedding_norm(
        hidden + self.positions(position)))
    hidden = hidden * mask[..., None]
    return self.encoder(
        hidden, attention_mask=mask[:, None, None]).last_hidden_state

  def match_logits(self, hidden_BTD):
    """Returns [B]: does the caption belong to the picture."""
    return self.match(torch.tanh(self.pooler(hidden_BTD[:, 0])))[:, 0].float()

  def token_logits(self, hidden_ND):
    """Returns [N, V], the tied table's."""
    return F.linear(hidden_ND, self.words.weight, self.token_bias).float()

  def region_class_logits(self, hidden_ND):
    """Returns [N, C]."""
    return self.class_out(self.class_norm(F.gelu(
        self.class_dense(hidden_ND)))).float()


def _choose(allowed_BN, rate=0.15):
  """Returns positions [B, P] drawn without replacement, and their weights."""
  limit = max(1, round(rate * allowed_BN.shape[1]))
  scores_BN = torch.where(allowed_BN, torch.rand(allowed_BN.shape), -1.0)
  top_BP, positions_BP = scores_BN.topk(limit, dim=1)
  wanted_B = (rate * allowed_BN.sum(1)).round().clamp(min=1)
  weight_BP = (torch.arange(limit) < wanted_B[:, None]) & (top_BP >= 0)
  return positions_BP, weight_BP.float()


def _take(values_BTD, positions_BP):
  return values_BTD.gather(1, positions_BP[..., None].expand(
      -1, -1, values_BTD.shape[-1])).flatten(0, 1)


def _mean(values, weight_BP):
  weight = weight_BP.flatten()
  return (values * weight).sum() / weight.sum()


def masked_tokens(model: M3P, rows, *, with_regions: bool):
  """Returns xMLM's or MC-MLM's loss: 80 % masked, 10 % random, 10 % kept."""
  ids_BL = rows['token_ids_BL']
  allowed_BL = ((ids_BL >= FIRST_WORD_ID) & (ids_BL != MASK_ID)
                & rows['text_mask_BL'])
  positions_BP, weight_BP = _choose(allowed_BL)
  original_BP = ids_BL.gather(1, positions_BP)
  kind_BP = torch.rand(positions_BP.shape)
  random_BP = torch.randint(FIRST_WORD_ID, MASK_ID, positions_BP.shape)
  shown_BP = torch.where(kind_BP < 0.8, MASK_ID, torch.where(
      kind_BP < 0.9, random_BP, original_BP))
  shown_BP = torch.where(weight_BP > 0, shown_BP, original_BP)
  shown_BL = ids_BL.scatter(1, positions_BP, shown_BP)
  if with_regions:
    hidden = model.encode(shown_BL, rows['text_mask_BL'],
                          rows['features_BRF'], rows['boxes_BRG'])
    hidden = hidden[:, -ids_BL.shape[1]:]
  else:
    hidden = model.encode(shown_BL, rows['text_mask_BL'])
  logits = model.token_logits(_take(hidden, positions_BP))
  return _mean(F.cross_entropy(
      logits, original_BP.flatten(), reduction='none'), weight_BP)


def masked_regions(model: M3P, rows):
  """Returns MC-MRM's loss: the class, and the feature's mean square error."""
  features_BRF, class_BR = rows['features_BRF'], rows['class_ids_BR']
  positions_BP, weight_BP = _choose(class_BR > 0)
  zeroed_BP = (torch.rand(positions_BP.shape) < 0.9) & (weight_BP > 0)
  hidden_BR = torch.zeros(class_BR.shape).scatter(
      1, positions_BP, zeroed_BP.float())
  hidden = model.encode(
      rows['token_ids_BL'], rows['text_mask_BL'],
      features_BRF * (1 - hidden_BR[..., None]), rows['boxes_BRG'])
  chosen = _take(hidden, positions_BP)
  nats = F.cross_entropy(
      model.region_class_logits(chosen), class_BR.gather(
          1, positions_BP).flatten(), reduction='none')
  error = (model.region_regression(chosen).float()
           - _take(features_BRF, positions_BP)).square().mean(-1)
  return _mean(nats + error, weight_BP)


def matching(model: M3P, rows):
  """Returns MC-VLM's loss: right pairs, and as many wrong ones."""
  count = len(rows['token_ids_BL'])
  row_B = torch.arange(count)
  wrong_B = (row_B + torch.randint(1, count, (count,))) % count
  swaps_B = torch.rand(count) < 0.5
  image = torch.cat([row_B, torch.where(swaps_B, wrong_B, row_B)])
  text = torch.cat([row_B, torch.where(swaps_B, row_B, wrong_B)])
  logits = model.match_logits(model.encode(
      rows['token_ids_BL'][text], rows['text_mask_BL'][text],
      rows['features_BRF'][image], rows['boxes_BRG'][image]))
  label = torch.cat([torch.ones(count), torch.zeros(count)])
  return F.binary_cross_entropy_with_logits(logits, label)


LOSSES = {
    'mc_mlm': lambda model, rows: masked_tokens(model, rows,
                                                with_regions=True),
    'mc_mrm': masked_regions,
    'mc_vlm': matching,
    'xmlm': lambda model, rows: masked_tokens(model, rows,
                                              with_regions=False),
}
