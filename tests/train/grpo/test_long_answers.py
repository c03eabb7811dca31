"""Answers of 2,048 and 4,096 tokens: log-probabilities as of whole logits, which are never in memory."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.trainer import utils

from tests.references.make_checkpoints import make
from tests.support import samples
from vqa.model.encode import encode
from vqa.model.load import hf
from vqa.train.grpo.packing import encode_prompt, pack_answers, score_answers, unpack_answers

WORDS, TILE = 8192, 1024  # of the vocabulary, and of it at a time


class Largest(TorchDispatchMode):
    """The number of values in the largest tensor that an operation returns."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(found) if isinstance(one, torch.Tensor)]
        self.values = max([self.values, *sizes])
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model of many words, and a prompt."""
    folder = make("qwen2_5_vl", tmp_path_factory.mktemp("model"))
    model = hf.AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa").eval()
    torch.manual_seed(0)
    model.resize_token_embeddings(WORDS, mean_resizing=False)
    views = samples.random_views(seed=1)
    inputs = encode(hf.AutoProcessor.from_pretrained(folder), views, prompt="preresq_video")
    return model, encode_prompt(model, inputs)


def whole(model: Any, prompt: Any, written: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    inputs, labels = pack_answers([prompt], [list(written)], dtype=model.dtype)
    logps = model(**inputs).logits[:, :-1].log_softmax(dim=-1)
    return unpack_answers(logps.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0], labels, mask)


def chunked(model: Any, prompt: Any, written: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return score_answers(model, [prompt], written, mask, attention="sdpa", dtype=model.dtype)[0]


@pytest.mark.parametrize("length", [2048, pytest.param(4096, marks=pytest.mark.full)])
def test_log_probabilities_of_long_answers_need_no_whole_logits(
    made: Any, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompt = made
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", TILE)
    if not hasattr(model, "is_fused"):
        utils.add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        model.is_fused = True
    written = torch.randint(WORDS // 2, WORDS, (1, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(written)
    results = []
    for way in (whole, chunked):
        model.zero_grad()
        with Largest() as largest:
            logps = way(model, prompt, written, mask)
            (logps * torch.linspace(-1, 1, logps.numel()).view_as(logps)).sum().backward()
        grads = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        results.append((logps.detach(), grads, largest.values))
    (logps, grads, most), (other, others, less) = results
    torch.testing.assert_close(other, logps, rtol=1e-4, atol=1e-4)
    for name, grad in grads.items():
        assert float((others[name] - grad).norm()) < 1e-3 * float(grad.norm()) + 1e-6, name
    assert most >= length * WORDS
    assert less < 0.6 * length * WORDS  # what is left is the attention's mask, a square of the row
