"""The head at chosen positions gives what the whole model gives there."""

import torch
from torch.testing import assert_close

from training.config.sections import ModelSection
from training.plain_head import ROWS, log_probabilities
from training.weights import store

SCRATCH = {"hidden": 32, "layers": 2, "heads": 2, "feed_forward": 64, "context": 64}
PROMPT, REPLY = 5, 6


def test_log_probabilities_and_entropies_are_those_of_the_full_forward_pass():
    config = ModelSection.model_validate({"path": "demo/tokenizer", "scratch": SCRATCH})
    model = store.load_model(config, store.load_tokenizer(config), 0)
    torch.manual_seed(0)
    rows = ROWS + 3
    ids = torch.randint(5, 60, (rows, PROMPT + REPLY))
    mask = torch.ones_like(ids)
    for i in range(rows):  # prompts are padded on the left, replies on the right
        mask[i, : i % PROMPT] = 0
        mask[i, PROMPT + 1 + i % REPLY :] = 0
    found, entropy = log_probabilities(model, model.get_output_embeddings(), ids, mask, REPLY, 0.5)
    for i in range(rows):
        kept = mask[i].bool()
        spread = (model(input_ids=ids[i][kept][None]).logits[0] / 0.5).log_softmax(-1)
        length = int(mask[i, PROMPT:].sum())
        expected = spread[:-1].gather(1, ids[i][kept][1:, None]).squeeze(1)[-length:]
        assert_close(found[i, :length], expected, atol=1e-5, rtol=1e-4)
        assert_close(entropy[i, :length], -(spread.exp() * spread).sum(-1)[:-1][-length:], atol=1e-5, rtol=1e-4)
        assert (found[i, length:] == 0).all()
