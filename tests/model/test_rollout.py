"""K answers from one prefill: the tokens of `generate`, whatever the neighbours, in the right proportions."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from tests.references.make_checkpoints import FAMILIES, Family, make
from tests.support.samples import random_views
from tests.support.scale import full
from vqa.model.card import ModelCard
from vqa.model.encode import encode
from vqa.model.load import Policy, load_model
from vqa.model.rollout import Rollout, Sampling, prefill, roll_out

Policies = Callable[[Family], Policy]
NEW = full(16, gate=10)


def encoded(policy: Policy, count: int, *, start: int = 0) -> list[Any]:
    places = range(start, start + count)
    return [encode(policy.processor, random_views(f"{i}", seed=i), prompt="preresq_video") for i in places]


def answers(policy: Policy, inputs: list[Any], **options: Any) -> list[list[Rollout]]:
    options = {"k": 1, "max_new_tokens": NEW, "vocabulary": policy.vocabulary} | options
    return roll_out(policy.model, [prefill(policy.model, one) for one in inputs], **options)


def tokens(rollouts: list[list[Rollout]]) -> list[list[int]]:
    return [rollout.tokens for clip in rollouts for rollout in clip]


def generated(policy: Policy, one: Any, **options: float) -> list[int]:
    with torch.inference_mode():
        out = policy.model.generate(
            **one, do_sample=False, max_new_tokens=NEW, suppress_tokens=list(policy.vocabulary.banned), **options
        )
    return [int(token) for token in out[0, one["input_ids"].shape[1] :] if token not in policy.vocabulary.ends]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_generate_alone_and_in_a_batch(family: Family, policy: Policies) -> None:
    model = policy(family)
    inputs = encoded(model, full(8, gate=6))
    expected = [generated(model, one) for one in inputs]
    assert len({tuple(one) for one in expected}) >= 5, "a test of answers that are all the same says nothing"
    assert len({one["input_ids"].shape[1] for one in inputs}) > 1
    assert tokens(answers(model, inputs)) == expected
    assert [tokens(answers(model, [one]))[0] for one in inputs] == expected


def test_a_repetition_penalty_is_that_of_generate(policy: Policies) -> None:
    model = policy("qwen2_5_vl")
    inputs = encoded(model, 4)
    expected = [generated(model, one, repetition_penalty=1.5) for one in inputs]
    assert tokens(answers(model, inputs, sampling=Sampling(repetition_penalty=1.5))) == expected
    assert expected != [generated(model, one) for one in inputs]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_each_attention_takes_its_mask(attention: str, checkpoint: Callable[[Family], Path]) -> None:
    model = load_model(ModelCard(source=str(checkpoint("qwen2_5_vl")), attention=attention, device_map="cpu"))
    inputs = encoded(model, 4)
    assert tokens(answers(model, inputs)) == [generated(model, one) for one in inputs]


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_do_not_depend_on_neighbours_or_k(family: Family, policy: Policies) -> None:
    model = policy(family)
    count = full(6, gate=4)
    inputs = encoded(model, count)
    four = tokens(answers(model, inputs, k=4, seeds=range(4 * count)))
    alone = [tokens(answers(model, [one], seeds=[4 * i]))[0] for i, one in enumerate(inputs)]
    assert four[::4] == alone
    assert len({tuple(one) for one in four}) == 4 * count
    seeds = [seed for i in reversed(range(count)) for seed in range(4 * i, 4 * i + 4)]
    backwards = tokens(answers(model, inputs[::-1], k=4, seeds=seeds))
    assert [four[seed] for seed in seeds] == backwards


def test_a_cache_with_a_sliding_window_gives_the_tokens_of_generate(tmp_path: Path) -> None:
    folder = make("qwen2_5_vl", tmp_path, layers=2)
    config = hf.AutoConfig.from_pretrained(folder)
    text = config.text_config
    text.use_sliding_window, text.sliding_window, text.max_window_layers = True, 48, 1
    text.layer_types = ["full_attention", "sliding_attention"]
    config.save_pretrained(folder)
    model = load_model(ModelCard(source=str(folder), device_map="cpu"))
    inputs = encoded(model, 3)
    assert type(prefill(model.model, inputs[0]).cache.layers[1]).__name__ == "DynamicSlidingWindowLayer"
    assert tokens(answers(model, inputs)) == [generated(model, one) for one in inputs]
    assert tokens(answers(model, inputs, k=2, seeds=range(6)))[::2] == [
        tokens(answers(model, [one], seeds=[2 * i]))[0] for i, one in enumerate(inputs)
    ]


def test_the_vision_tower_and_the_prompt_run_once_whatever_k(policy: Policies) -> None:
    model = policy("qwen2_5_vl")
    inputs = encoded(model, 2)
    looks: list[int] = []
    lengths: list[int] = []
    hooks = [
        model.model.model.visual.register_forward_hook(lambda *_: looks.append(1)),
        model.model.model.language_model.register_forward_hook(
            lambda _module, _args, kwargs, _out: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
        ),
    ]
    try:
        answers(model, inputs, k=5, seeds=range(10))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(looks) == 2
    assert lengths[:2] == [one["input_ids"].shape[1] for one in inputs]
    assert set(lengths[2:]) == {1}


def test_no_banned_token_is_ever_written(policy: Policies) -> None:
    model = policy("qwen2_5_vl")
    many = tokens(answers(model, encoded(model, 1), k=64, seeds=range(64), sampling=Sampling(temperature=5.0)))
    written = {token for one in many for token in one}
    assert len(written) > 100
    assert not written & set(model.vocabulary.banned)
    names = model.processor.tokenizer.convert_ids_to_tokens(list(model.vocabulary.banned))
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>"} <= set(names)
    assert not {"<|im_end|>", "<|endoftext|>"} & set(names)


def test_an_answer_that_ends_is_the_beginning_of_the_one_that_may_not(policy: Policies) -> None:
    model = policy("qwen2_5_vl")
    inputs = encoded(model, 4)
    likely = Counter(token for one in tokens(answers(model, inputs)) for token in one).most_common(1)[0][0]
    words = replace(model.vocabulary, ends=(likely,))
    long, short = answers(model, inputs), answers(model, inputs, vocabulary=words)
    for (whole,), (cut,) in zip(long, short, strict=True):
        stop = whole.tokens.index(likely) if likely in whole.tokens else NEW
        assert cut.tokens == whole.tokens[:stop]
        assert cut.is_finished == (stop < NEW)
    assert any(cut.is_finished for (cut,) in short)


def test_digit_logits_stand_beside_the_tokens_they_led_to(policy: Policies) -> None:
    model = policy("qwen2_5_vl")
    digits = replace(model.vocabulary, digits=tuple(range(model.vocabulary.size)))
    for clip in answers(model, encoded(model, 3), k=2, seeds=None, vocabulary=digits, keep_digits=True):
        for rollout in clip:
            assert rollout.digit_logits is not None
            assert rollout.digit_logits.argmax(-1).tolist() == rollout.tokens


def test_sampling_draws_in_the_model_s_proportions(chain: Path) -> None:
    model = load_model(ModelCard(source=str(chain), device_map="cpu"))
    # A short question: each of 2,000 answers has its prompt's keys and values.
    inputs = [encode(model.processor, random_views(), prompt="q_insight", question="How good?")]

    def first(count: int = 2000, **sampling: Any) -> Counter[str]:
        rollouts = roll_out(model.model, [prefill(model.model, inputs[0])], k=count, vocabulary=model.vocabulary,
                            max_new_tokens=1, seeds=range(count), sampling=Sampling(**sampling))[0]  # fmt: skip
        return Counter(model.processor.tokenizer.decode(rollout.tokens) for rollout in rollouts)

    plain = first()
    for text, chance in {"2": 0.2, "3": 0.5, "4": 0.3}.items():
        assert plain[text] / plain.total() == pytest.approx(chance, abs=0.045)  # four standard deviations
    weights = {text: chance**2 for text, chance in {"2": 0.2, "3": 0.5, "4": 0.3}.items()}
    assert first(temperature=0.5)["3"] / plain.total() == pytest.approx(weights["3"] / sum(weights.values()), abs=0.045)
    assert set(first(200, top_k=2)) == set(first(200, top_p=0.7)) == {"3", "4"}
    assert set(first(200, top_k=1)) == set(first(200, top_p=0.1)) == {"3"}
