"""Batches and faults of the transformers engine: one clip's fault, memory that runs out, a lost device."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BatchFeature

from tests.support.samples import random_views
from tests.support.scorers import Checkpoints, scorer, small_views, texts
from vqa.errors import ClipError, ModelError
from vqa.model.engines import transformers as engine
from vqa.model.engines.config import EngineConfig
from vqa.model.scorer import Scorer
from vqa.model.transfer import Sender
from vqa.types import Score, Views

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("read_once")]


def broken_views() -> Views:
    return random_views("broken", [np.zeros((0, 40, 3), np.uint8)])


@contextmanager
def raising(model: Scorer, error: type[Exception], when: Callable[[torch.Tensor], bool]) -> Iterator[list[int]]:
    """A fault on the way into the model for some inputs: `when` gets the input ids."""
    met: list[int] = []

    def fault(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        if when(named["input_ids"]):
            met.append(len(named["input_ids"]))
            raise error("injected")

    hook = model.engine.policy.model.register_forward_pre_hook(fault, with_kwargs=True)
    try:
        yield met
    finally:
        hook.remove()


def test_a_clip_that_cannot_be_prepared_costs_only_itself(checkpoint: Checkpoints) -> None:
    model = scorer(checkpoint("qwen2_5_vl"))
    good = small_views(4)
    outcomes = model.try_score([*good[:2], broken_views(), *good[2:]])
    assert isinstance(outcomes[2], ClipError)
    assert outcomes[2].kind == "model"
    assert "broken" in str(outcomes[2])
    scores = [outcome for outcome in outcomes if isinstance(outcome, Score)]
    assert texts(scores) == texts(model.score(good))
    with pytest.raises(ClipError, match="broken"):
        model.score([*good, broken_views()])


def test_a_clip_on_which_the_model_fails_costs_only_itself(checkpoint: Checkpoints) -> None:
    model = scorer(checkpoint("qwen2_5_vl"), batch_size=8)
    good = small_views(5)
    free = model.score(good)
    longest = max(range(5), key=lambda i: sum(p.size for p in good[i].pictures))
    length = model.engine.encode(model._question(good[longest])).length
    with raising(model, ValueError, lambda ids: ids.shape[1] == length) as met:
        outcomes = model.try_score(good)
    assert met
    failed = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, ClipError)]
    assert longest in failed
    assert len(failed) < 5
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, Score):
            assert texts([outcome]) == texts([free[i]])


def test_out_of_memory_halves_the_batch_and_goes_on(checkpoint: Checkpoints) -> None:
    model = scorer(checkpoint("qwen2_5_vl"), batch_size=8)
    views = small_views(8)
    free = texts(model.score(views))
    with raising(model, torch.OutOfMemoryError, lambda ids: len(ids) > 2) as met:
        assert texts(model.score(views)) == free
    assert met == [8, 4, 4]


def test_after_out_of_memory_later_batches_fit_at_once(checkpoint: Checkpoints) -> None:
    model = scorer(checkpoint("qwen2_5_vl"), batch_size=8)
    views = [random_views(f"{place}", seed=place) for place in range(8)]  # all of one length
    with raising(model, torch.OutOfMemoryError, lambda ids: len(ids) > 4) as met:
        model.score(views)
        model.score(views)
    assert met == [8]


@pytest.mark.parametrize(("clips", "batches"), [(1.2, [1] * 6), (2.6, [2] * 3), (100.0, [6])])
def test_batches_are_what_the_device_has_room_for(
    clips: float, batches: list[int], checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [random_views(f"{place}", seed=place) for place in range(6)]  # all of one length
    free = texts(scorer(checkpoint("qwen2_5_vl"), k=2).score(views))
    model = scorer(checkpoint("qwen2_5_vl"), k=2)
    config = model.engine.policy.model.config.get_text_config()
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    of_token = 2 * config.num_hidden_layers * width * 4  # keys and values in float32
    tokens = 2 * (model.engine.encode(model._question(views[0])).length + model.generation.max_new_tokens)
    room = int(clips * tokens * of_token / engine.SHARE)
    monkeypatch.setattr(engine, "room_beside", lambda device, work: (work(), room))
    seen: list[int] = []
    answer_all = engine.TransformersEngine._answer_all

    def noted(self: Any, batch: Any, outcomes: Any) -> None:
        seen.append(len(batch))
        answer_all(self, batch, outcomes)

    monkeypatch.setattr(engine.TransformersEngine, "_answer_all", noted)
    assert texts(model.score(views)) == free
    assert seen == batches


def test_questions_encoded_ahead_come_in_order_with_their_errors(checkpoint: Checkpoints) -> None:
    model = scorer(checkpoint("qwen2_5_vl"))
    questions = [model._question(one) for one in (*small_views(3), broken_views(), *small_views(2))]
    for ahead in (1, 2, 9):
        found = list(model.engine._encoded(questions, range(6), ahead=ahead))
        assert [one.place if isinstance(one, engine.Encoded) else "broken" for one in found] == [
            0,
            1,
            2,
            "broken",
            4,
            5,
        ]
    assert list(model.engine._encoded([], [], ahead=2)) == []


class FakeGpu:
    """The calls of torch.cuda that a copy beside the GPU's work makes, noted with the thread; tensors stay on the CPU.

    What it cannot show is that the copy and the work do overlap.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, object, bool]] = []  # what, of which stream, whether in the caller's thread
        self.streams = ["compute"]
        home, gpu, to = threading.current_thread(), self, BatchFeature.to

        def note(what: str, of: object = None) -> None:
            gpu.calls.append((what, of, threading.current_thread() is home))

        class Event:
            def record(self, stream: str) -> None:
                note("record", stream)

        class Compute:
            def wait_event(self, event: Event) -> None:
                note("wait", "compute")

        @contextmanager
        def on(stream: str) -> Iterator[None]:
            gpu.streams.append(stream)
            yield
            gpu.streams.pop()

        def copied(inputs: BatchFeature, *place: object, **options: Any) -> BatchFeature:
            if place and "dtype" not in options:  # neither the cast nor what `prefill` asks for
                assert options == {"non_blocking": True}
                note("copy", gpu.streams[-1])
                gpu.copy()
            return to(inputs, *place, **options)

        def pinned(tensor: torch.Tensor) -> torch.Tensor:
            note("pin", str(tensor.dtype))
            return tensor

        patch.setattr(torch.cuda, "Stream", lambda device: "side")
        patch.setattr(torch.cuda, "stream", on)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "current_stream", lambda device: Compute())
        patch.setattr(BatchFeature, "to", copied)
        patch.setattr(torch.Tensor, "pin_memory", pinned)
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: note("held", type(stream).__name__))
        self.note = note

    def copy(self) -> None:
        """As a copy: here is room, or not."""


def test_a_copy_to_a_gpu_is_begun_beside_its_work_and_waited_for_on_it(
    checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scorer(checkpoint("qwen2_5_vl"), batch_size=2)
    views = small_views(3)
    model.engine.policy.model.bfloat16()
    wanted = texts(model.score(views))
    gpu = FakeGpu(monkeypatch)
    model.engine._sender, model.engine._ahead = Sender(torch.device("cpu"), torch.bfloat16), 2
    hook = model.engine.policy.model.register_forward_pre_hook(lambda *_: gpu.note("forward"))
    try:
        assert texts(model.score(views)) == wanted
    finally:
        hook.remove()
    sent = [call for call in gpu.calls if call[0] in ("pin", "copy", "record")]
    assert not any(by_caller for _, _, by_caller in sent), "in the encoding thread"
    assert "torch.float32" not in {of for what, of, _ in sent if what == "pin"}, "cast before they are pinned"
    order = [(what, of) for what, of, _ in sent if what != "pin"]
    assert order == [("copy", "side"), ("record", "side")] * 3
    assert [what for what, _, _ in sent][:3] == ["pin"] * 3, "before the first copy"
    used = [(what, of) for what, of, by_caller in gpu.calls if by_caller]
    begins = [at for at, call in enumerate(used) if call == ("wait", "compute")]
    assert len(begins) == 3
    for at in begins:
        held = itertools.takewhile(lambda call: call == ("held", "Compute"), used[at + 1 :])
        assert used[at + 1 + len(list(held))] == ("forward", None), "the model reads them after the wait"
    assert used.count(("held", "Compute")) == len([call for call in sent if call[0] == "pin"])

    def full() -> None:
        raise torch.OutOfMemoryError("injected")

    gpu.copy = full  # type: ignore[method-assign]
    gpu.calls.clear()
    assert texts(model.score(views)) == wanted, "copied with the batch instead"
    assert {what for what, _, _ in gpu.calls} == {"pin", "copy"}


def test_out_of_memory_on_one_clip_names_the_way_out(checkpoint: Checkpoints) -> None:
    model = scorer(checkpoint("qwen2_5_vl"))
    with raising(model, torch.OutOfMemoryError, lambda ids: True):
        (outcome,) = model.try_score(small_views(1))
    assert isinstance(outcome, ClipError)
    assert "max_new_tokens" in str(outcome)


def test_a_lost_device_stops_everything(checkpoint: Checkpoints) -> None:
    model = scorer(checkpoint("qwen2_5_vl"))
    with raising(model, torch.AcceleratorError, lambda ids: True), pytest.raises(ModelError, match="device is lost"):
        model.try_score(small_views(2))


@pytest.mark.full
@pytest.mark.timeout(900)
def test_compiled_steps_write_the_same_answers(checkpoint: Checkpoints) -> None:
    """Few compilations serve batches of all sizes, with and without padding, as rows leave and caches grow."""
    from torch._dynamo.utils import counters  # seconds that only this test pays

    source, views = checkpoint("qwen2_5_vl"), small_views(5)
    wanted = texts(scorer(source, k=3, batch_size=4).score(views))
    torch.compiler.reset()
    counters.clear()
    compiled = scorer(source, k=3, batch_size=4, engine=EngineConfig(compile=True))
    assert texts(compiled.score(views)) == wanted
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
    assert not counters["graph_break"]
