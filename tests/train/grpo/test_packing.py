"""K answers behind one prompt: log-probabilities, entropies and gradients are those of K rows of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.references.make_checkpoints import make
from tests.support import samples
from vqa.model.encode import encode
from vqa.model.load import hf
from vqa.train.grpo.packing import collapse_repeats, encode_prompt, pack_answers, unpack_answers

ANSWERS = ([[5, 9, 7], [5], [8, 6, 6, 4, 9]], [[7, 7], [9, 5, 6, 8]])


def apart(model: Any, processor: Any, clips: list[Any]) -> torch.Tensor:
    """Each answer in a row of its own, [answers, T]."""
    found = []
    for views, group in zip(clips, ANSWERS, strict=True):
        inputs = encode(processor, views, prompt="preresq_video")
        for answer in group:
            one = dict(inputs)
            one["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
            for name in ("attention_mask", "mm_token_type_ids"):
                if name in one:
                    rest = torch.full((1, len(answer)), int(name == "attention_mask"))
                    one[name] = torch.cat([inputs[name], rest], dim=1)
            logits = model(**one).logits[0, -len(answer) - 1 : -1].log_softmax(dim=-1)
            found.append(torch.nn.functional.pad(logits[range(len(answer)), answer], (0, 5 - len(answer))))
    return torch.stack(found)


def together(model: Any, processor: Any, clips: list[Any]) -> torch.Tensor:
    asked = [encode_prompt(model, encode(processor, views, prompt="preresq_video")) for views in clips]
    answers = [[torch.tensor(answer) for answer in group] for group in ANSWERS]
    is_eager = model.config._attn_implementation == "eager"
    inputs, labels = pack_answers(asked, answers, is_eager=is_eager, dtype=model.dtype)
    logps = model(**inputs).logits[:, :-1].log_softmax(dim=-1)
    picked = logps.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    mask = torch.tensor([[1] * len(answer) + [0] * (5 - len(answer)) for group in ANSWERS for answer in group])
    return unpack_answers(picked, labels, mask)


@pytest.mark.parametrize(
    ("family", "attention"),
    [("qwen2_5_vl", "sdpa"), ("qwen2_5_vl", "eager"), ("qwen3_vl", "sdpa"), ("internvl", "sdpa")],
)
def test_one_row_a_clip_gives_what_one_row_an_answer_gives(tmp_path: Path, family: Any, attention: str) -> None:
    folder = make(family, tmp_path)
    processor = hf.AutoProcessor.from_pretrained(folder)
    clips = [samples.random_views(seed=1), samples.random_views(seed=2)]
    model = hf.AutoModelForImageTextToText.from_pretrained(folder, attn_implementation=attention).double().eval()
    results = []
    for way in (apart, together):
        model.zero_grad()
        logps = way(model, processor, clips)
        (logps * torch.linspace(-1, 1, logps.numel(), dtype=torch.double).view_as(logps)).sum().backward()
        grads = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        results.append((logps.detach(), grads))
    (expected, its), (found, own) = results
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # softmax and norms are float32 in the library
    assert its.keys() == own.keys() and any("visual" in name or "vision" in name for name in own)
    for name, grad in its.items():
        worst = ((own[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-9)).item()
        assert worst < 1e-5, (name, worst)


def test_a_run_of_one_token_is_one_and_others_stay() -> None:
    assert collapse_repeats([7, 7, 1, 2, 2, 7, 3, 7, 7, 7], 7) == [7, 1, 2, 2, 7, 3, 7]
    assert collapse_repeats([], 7) == []
