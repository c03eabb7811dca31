"""What we lean on in transformers, so that an upgrade that takes it away fails here, by name."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.cache_utils import DynamicLayer
from transformers.utils import import_utils

from tests.references.make_checkpoints import FAMILIES, Family, make
from tests.support.samples import random_views
from vqa.model import _compat
from vqa.model._compat import attention_of, late_imports, position_ids
from vqa.model.encode import encode

torch.set_num_threads(1)
PLAIN = [family for family in FAMILIES if family != "qwen3_5"]  # its recurrent layers are answered clip by clip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], tuple[Any, Any]]:
    made: dict[Family, tuple[Any, Any]] = {}

    def of(family: Family) -> tuple[Any, Any]:
        if family not in made:
            folder = make(family, tmp_path_factory.mktemp("contracts") / family)
            model = hf.AutoModelForImageTextToText.from_pretrained(folder).eval()
            made[family] = model, hf.AutoProcessor.from_pretrained(folder)
        return made[family]

    return of


@pytest.mark.parametrize("needed", ["a listed name", "another name", "a module below"])
def test_a_late_name_is_imported_when_it_is_called_and_any_other_at_once(
    needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model's load does without: tests/test_imports.py."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "wsgiref"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(_compat, "_LATE", {"wsgiref.util": ("guess_scheme",), "wsgiref": ()})
    calls = 0

    def load() -> Callable[[dict[str, str]], str]:
        nonlocal calls
        calls += 1
        if needed == "another name":
            importlib.import_module("wsgiref.util").application_uri  # noqa: B018
        elif needed == "a module below":
            importlib.import_module("wsgiref.headers")
        from wsgiref.util import guess_scheme

        return guess_scheme

    guess = late_imports(load)
    assert ("wsgiref.util" in sys.modules) == (needed != "a listed name")
    assert calls == 1 + (needed == "a module below")
    assert guess({"HTTPS": "on"}) == "https"
    assert sys.modules["wsgiref.util"].application_uri  # the real one
    assert torch.compiler.disable.__module__ == "torch.compiler"


def test_the_classes_of_all_models_are_those_of_the_first_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    define, listed = import_utils.define_import_structure, str(Path(hf.__file__).parent / "models" / "__init__.py")
    define(Path(listed).parent, prefix="models")  # as `import transformers` does
    read = []
    monkeypatch.setattr(import_utils, "create_import_structure_from_path", read.append)
    known = late_imports(lambda: import_utils.define_import_structure(listed))
    assert not read
    monkeypatch.undo()
    assert import_utils.define_import_structure is define
    assert known == define(listed)


@pytest.mark.parametrize("is_imported", [False, True])
def test_transformers_does_without_torch_distributed_where_it_is_alone(is_imported: bool) -> None:
    asked = inspect.unwrap(import_utils.is_torch_distributed_available)  # without its memory
    assert late_imports(asked, alone=not is_imported) == is_imported
    assert torch.distributed.is_available()


@pytest.fixture
def symbols(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """torch's module for symbols, not what may stand for it in this process."""
    if isinstance(sys.modules.get(_compat._SYMBOLS), _compat._StandIn):
        monkeypatch.delitem(sys.modules, _compat._SYMBOLS)
    return importlib.import_module(_compat._SYMBOLS)


@pytest.mark.filterwarnings("ignore:guard_size_oblivious")
def test_what_a_worker_answers_of_plain_numbers_is_what_torch_answers(symbols: ModuleType) -> None:
    """That a worker does without it, and so without sympy: tests/test_imports.py."""
    asked: dict[str, list[tuple[Any, ...]]] = {
        "sym_and": [(True,), (True, True), (True, False)],
        "sym_or": [(False,), (False, True), (False, False)],
        "sym_eq": [((2, 3), (2, 3)), ((2, 3), [2, 3]), ((2,), (2, 3)), ((2, 4), (2, 3)), ((), ())],
        "is_nested_int": [(3,)],
    }
    for name, answer in _compat._OF_NUMBERS.items():
        for values in asked.get(name, [(True,), (False,)]):
            assert answer(values) == getattr(symbols, name)(*values), (name, values)


def test_a_question_about_symbols_goes_to_the_module_that_knows_them(
    symbols: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, _compat._SYMBOLS)

    def load() -> tuple[Any, Any]:
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, guard_or_false

        return guard_or_false, GuardOnDataDependentSymNode

    monkeypatch.setattr(_compat, "import_module", {_compat._SYMBOLS: symbols}.__getitem__)
    guard, error = late_imports(load, alone=True)
    assert error is symbols.GuardOnDataDependentSymNode
    assert not guard(False)
    asked: list[object] = []
    monkeypatch.setattr(symbols, "guard_or_false", lambda one: asked.append(one) or True)
    assert guard(symbol := object())
    assert asked == [symbol]


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_come_from_one_method_and_each_token_adds_one(
    family: Family, loaded: Callable[[Family], Any]
) -> None:
    model, processor = loaded(family)
    inputs = encode(processor, random_views(), prompt="q_insight")
    seen: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(lambda _m, _a, named: seen.append(named["position_ids"]), with_kwargs=True)
    try:
        model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    finally:
        hook.remove()
    positions = position_ids(model, inputs)
    assert torch.equal(positions, seen[0])
    assert positions.shape[-2:] == inputs["input_ids"].shape
    for step, got in enumerate(seen[1:], start=1):
        assert torch.equal(got, positions[..., -1:] + step)


@pytest.mark.parametrize("family", PLAIN)
def test_a_model_takes_a_cache_of_plain_layers_and_gives_only_the_logits_asked_for(
    family: Family, loaded: Callable[[Family], Any]
) -> None:
    model, processor = loaded(family)
    inputs = encode(processor, random_views(), prompt="q_insight")
    cache = hf.DynamicCache(config=model.config.get_text_config(decoder=True))
    with torch.inference_mode():
        out = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    assert out.logits.shape == (1, 1, model.get_output_embeddings().weight.shape[0])
    assert all(type(layer) is DynamicLayer for layer in cache.layers)
    length = inputs["input_ids"].shape[1]
    assert cache.get_seq_length() == length
    assert all(layer.keys.shape[-2] == layer.values.shape[-2] == length for layer in cache.layers)
    cache.reorder_cache(torch.zeros(3, dtype=torch.long))  # repeats as well as chooses
    assert cache.layers[0].keys.shape[0] == 3
    cache.reorder_cache(torch.tensor([1]))
    assert cache.layers[0].keys.shape[0] == 1
    cache.layers[0].reset()
    assert cache.layers[0].keys is None


@pytest.mark.parametrize("family", PLAIN)
def test_a_ready_made_mask_reaches_the_attention_as_it_is(family: Family, loaded: Callable[[Family], Any]) -> None:
    model, processor = loaded(family)
    inputs = encode(processor, random_views(), prompt="q_insight")
    length = inputs["input_ids"].shape[1]
    positions = position_ids(model, inputs)[..., -1:] + 1
    logits = []
    for mask in (None, torch.ones(1, 1, 1, length + 1, dtype=torch.bool), torch.ones(1, length + 1, dtype=torch.long)):
        cache = hf.DynamicCache(config=model.config.get_text_config(decoder=True))
        with torch.inference_mode():
            model(**inputs, past_key_values=cache, use_cache=True)
            token = inputs["input_ids"][:, -1:]
            step = model(input_ids=token, position_ids=positions, attention_mask=mask, past_key_values=cache)
        logits.append(step.logits)
    assert torch.allclose(logits[0], logits[1], atol=1e-4)
    assert torch.allclose(logits[0], logits[2], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_processors_take_a_rendered_prompt_and_nested_pictures(family: Family, loaded: Callable[[Family], Any]) -> None:
    model, processor = loaded(family)
    inputs = encode(processor, random_views(), prompt="preresq_video")
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert inputs["attention_mask"].all()
    moved = inputs.to("cpu", dtype=torch.bfloat16)
    assert moved["pixel_values"].dtype == torch.bfloat16
    assert moved["input_ids"].dtype == torch.long
    if model.config.model_type.startswith("qwen"):
        assert {"mm_token_type_ids", "image_grid_thw"} <= set(inputs)


def test_loading_reports_missing_weights(tmp_path: Path) -> None:
    folder = make("qwen2_5_vl", tmp_path)
    _, report = hf.AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    assert not report["missing_keys"]
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _, report = hf.AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    assert set(report["missing_keys"]) == {"lm_head.weight"}


def test_special_tokens_are_marked_in_the_vocabulary(loaded: Callable[[Family], Any]) -> None:
    tokenizer = loaded("qwen2_5_vl")[1].tokenizer
    added = tokenizer.added_tokens_decoder
    assert added[tokenizer.convert_tokens_to_ids("<|image_pad|>")].special
    assert set(tokenizer.get_vocab().values()) >= set(added)


def test_progress_bars_can_be_put_away() -> None:
    bars = hf.utils.logging
    before = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    assert not bars.is_progress_bar_enabled()
    bars.enable_progress_bar()
    assert bars.is_progress_bar_enabled()
    if not before:
        bars.disable_progress_bar()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_names_the_attention_it_was_loaded_with(attention: str, tmp_path: Path) -> None:
    folder = make("qwen2_5_vl", tmp_path)
    assert (
        attention_of(hf.AutoModelForImageTextToText.from_pretrained(folder, attn_implementation=attention)) == attention
    )


def test_the_trainer_has_the_methods_that_are_overridden() -> None:
    """See vqa/train/guarded.py and vqa/train/sft/trainer.py."""
    wanted = {
        "_get_train_sampler": ["self", "train_dataset"],
        "_clip_grad_norm": ["self", "model"],
        "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_save_optimizer_and_scheduler": ["self", "output_dir"],
        "_load_optimizer_and_scheduler": ["self", "checkpoint"],
        "create_scheduler": ["self", "num_training_steps", "optimizer"],
    }
    found = {name: list(inspect.signature(getattr(hf.Trainer, name)).parameters) for name in wanted}
    assert found == wanted
