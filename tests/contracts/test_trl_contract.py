"""What vqa.train takes from trl and transformers beyond their public interfaces (vqa/train/_compat.py)."""

import inspect
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_client
from trl.generation.vllm_generation import VLLMGeneration
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import add_fused_lm_head

from tests.references.make_checkpoints import make
from tests.support import rehearsal
from vqa.train import _compat
from vqa.train.grpo.trainer import Trainer
from vqa.train.sft.trainer import Supervised

PARAMETERS = {
    "GRPOTrainer": {
        "_get_train_sampler": ["dataset"],
        "_prepare_inputs": ["generation_batch"],
        "_generate_and_score_completions": ["inputs"],
        "_get_per_token_logps_and_entropies": ["model", "input_ids", "attention_mask", "logits_to_keep"],
        "_compute_loss": ["model", "inputs"],
    },
    "Trainer": {
        "_get_train_sampler": ["train_dataset"],
        "_clip_grad_norm": ["model"],
        "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
        "_save_checkpoint": ["model", "trial"],
        "_save_optimizer_and_scheduler": ["output_dir"],
        "_load_optimizer_and_scheduler": ["checkpoint"],
    },
}
BASES = {"GRPOTrainer": GRPOTrainer, "Trainer": hf.Trainer}
OVERRIDDEN = [(base, method) for base, methods in _compat.OVERRIDDEN.items() for method in methods]


@pytest.mark.parametrize(("base", "method"), OVERRIDDEN)
def test_the_overridden_methods_take_what_they_took(base: str, method: str) -> None:
    names = list(inspect.signature(getattr(BASES[base], method)).parameters)
    assert names[1 : 1 + len(PARAMETERS[base][method])] == PARAMETERS[base][method]


@pytest.mark.parametrize(("own", "base"), [(Trainer, GRPOTrainer), (Supervised, hf.Trainer)])
def test_every_overridden_private_method_is_listed(own: type, base: type) -> None:
    mine = {name for one in own.__mro__ if one.__module__.startswith("vqa.") for name in vars(one)}
    private = {name for name in mine if name.startswith("_") and not name.startswith("__") and hasattr(base, name)}
    listed = {
        method for name, methods in _compat.OVERRIDDEN.items() if issubclass(base, BASES[name]) for method in methods
    }
    assert {name for name in private if callable(getattr(base, name))} <= listed


@pytest.mark.parametrize(("method", "names"), [("log", ["logs", "start_time"]), ("create_optimizer", ["model"])])
def test_the_extended_public_methods_take_what_they_took(method: str, names: list[str]) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters)[1 : 1 + len(names)] == names


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """A trainer after one step of two micro-batches, and what its rollout function was given and gave."""
    trainer = rehearsal.trainer(
        tmp_path_factory.mktemp("trl"),
        num_generations=2,
        per_device_train_batch_size=2,
        max_completion_length=4,
        check_first_batch=False,
    )
    seen: dict[str, Any] = {}
    rollout, reward = trainer.rollout_func, trainer.reward_funcs[0]

    def generate(prompts: list[Any], its: Any) -> dict[str, Any]:
        seen.update(asked=len(prompts), is_itself=its is trainer)
        return rollout(prompts, its) | {"note": list(range(len(prompts)))}  # type: ignore[no-any-return]

    def pay(**columns: Any) -> list[float]:
        seen.update(columns)
        _compat.add_metric(trainer, "probe", 1.0)
        _compat.add_metric(trainer, "probe", 3.0)
        return reward(**columns)  # type: ignore[no-any-return]

    trainer.rollout_func, trainer.reward_funcs[0] = generate, pay
    trainer.train()
    return trainer, seen


def test_a_rollout_function_is_called_with_the_prompts_and_the_trainer_and_needs_no_log_probabilities(
    trained: tuple[Any, dict[str, Any]],
) -> None:
    _, seen = trained
    assert seen["asked"] == 4 and seen["is_itself"]
    assert seen["note"] == [0, 1, 2, 3]  # further keys reach the reward, a value for each answer


def test_passes_metrics_and_seconds_are_counted_where_we_read_them(trained: tuple[Any, dict[str, Any]]) -> None:
    trainer, _ = trained
    assert _compat.micro_step(trainer) == 2
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert entry["probe"] == 2.0 and entry["step_time"] > 0
    assert entry["clips_per_second"] == pytest.approx(2 / entry["step_time"])
    assert _compat.step_seconds(trainer) == []  # logged, so dropped


def test_the_settings_we_write_exist() -> None:
    wanted = {"num_generations", "steps_per_generation", "num_iterations", "beta", "epsilon", "epsilon_high"}
    wanted |= {"temperature", "top_p", "max_completion_length", "top_entropy_quantile", "loss_type", "scale_rewards"}
    wanted |= {"use_vllm", "vllm_mode", "vllm_server_base_url", "vllm_gpu_memory_utilization"}
    wanted |= {"vllm_enable_sleep_mode"}
    assert wanted <= set(inspect.signature(GRPOConfig.__init__).parameters)


def test_generation_unwraps_the_model() -> None:
    assert list(inspect.signature(unwrap_model_for_generation).parameters)[:3] == [
        "model",
        "accelerator",
        "gather_deepspeed3_params",
    ]


def test_the_fused_head_scores_labels_one_place_ahead_and_divides_by_the_temperature(tmp_path: Path) -> None:
    folder = make("qwen2_5_vl", tmp_path)
    model = hf.AutoModelForImageTextToText.from_pretrained(folder)
    assert _compat.source_of(model) == str(folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    logps = (model(input_ids=ids).logits / 2.0).log_softmax(dim=-1)
    add_fused_lm_head(model, temperature=2.0, outputs=("log_probs", "entropy"))
    out = model(input_ids=ids, labels=torch.tensor([[-100, -100, 7, 8]]), fused_lm_head=True)
    torch.testing.assert_close(out.log_probs, torch.stack([logps[0, 0, 5] * 0, logps[0, 1, 7], logps[0, 2, 8]])[None])
    entropy = -(logps.exp() * logps).sum(dim=-1)
    torch.testing.assert_close(out.entropy[0, 1:], entropy[0, 1:3])


def test_vision_rotation_turns_pairs_by_their_angle() -> None:
    query = torch.randn(1, 3, 2, 4)  # [batch, places, heads, channels]
    angle = torch.rand(3, 2)
    both = torch.cat([angle, angle], dim=-1)
    turned, _ = _compat.rotate_vision(query, query, both.cos(), both.sin())
    first, second = query.chunk(2, dim=-1)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    torch.testing.assert_close(turned, torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1))


def test_batches_split_in_order() -> None:
    parts = _compat.split_batch({"a": torch.arange(4), "b": None, "n": torch.tensor(3)}, 2)
    assert [part["a"].tolist() for part in parts] == [[0, 1], [2, 3]] and parts[1]["n"] == 3


def test_vllm_is_asked_with_ids_and_pictures() -> None:
    names = list(inspect.signature(VLLMGeneration.generate).parameters)
    assert names == ["self", "prompts", "images", "num_generations", "profiler"]


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that answers every request, and the paths that were posted to it."""
    posted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": [{"id": "model"}]}')

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            posted.append(self.path)
            self._answer()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", posted
        running.shutdown()
        thread.join()


def test_the_client_of_a_vllm_server_posts_to_its_address(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, posted = server
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)  # the client itself needs only requests
    generation = SimpleNamespace(vllm_client=vllm_client.VLLMClient(base_url=address))
    for is_main in (True, False):
        accelerator = SimpleNamespace(is_main_process=is_main)
        trainer = SimpleNamespace(vllm_generation=generation, accelerator=accelerator)
        _compat.reset_vllm_encoder_cache(trainer, is_server=True)
    assert posted == ["/reset_encoder_cache"]
