"""Material for tests of the trainer: the embedded model, and looks at the bundled clips, more and less damaged."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from vqa.model.card import find_card
from vqa.model.encode import padded
from vqa.model.load import hf
from vqa.train.grpo.build import make_trainer
from vqa.train.grpo.config import GrpoSettings
from vqa.train.grpo.dataset import Example
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

torch.set_num_threads(1)  # these models are so small that threads only wait for each other
ASSETS = Path(__file__).parents[2] / "vqa" / "assets"
CLIPS = ("big_buck_bunny", "big_buck_bunny_end")
SMALL = {
    "num_generations": 3,
    "clips_per_step": 2,
    "max_steps": 1,
    "max_completion_length": 48,
    "learning_rate": 1e-4,
    "beta": 0.0,
    "gradient_checkpointing": False,
    "temperature": 0.7,
}
# A few words that earn no reward; every update is Q-Hawkeye's regulariser.
UNPAID: dict[str, Any] = {
    "objectives": [{"kind": "sequence_entropy", "weight": 0.1}],
    "num_generations": 2,
    "max_completion_length": 6,
    "check_first_batch": False,
}


@functools.cache
def clean(name: str) -> Views:
    """What the embedded model sees of a bundled clip, with two local pictures."""
    views = find_card("embedded")["views"] | {"local_pictures": 2, "global_pixels": 112, "spatial": "centre"}
    clip = Clip(clip_id=name, uri=str(ASSETS / "clips" / f"{name}.mp4"))
    return look(clip, ViewsConfig(**views))


def blur(views: Views, sigma: float) -> Views:
    """The same, blurred."""

    def soft(pictures: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(np.asarray(gaussian_filter(one, (sigma, sigma, 0))) for one in pictures)

    return replace(views, global_pictures=soft(views.global_pictures), local_pictures=soft(views.local_pictures))


def picture(pixels: Any) -> Image.Image:
    """As the processor is given it."""
    return Image.fromarray(padded(pixels))


class Counted:
    """A look at a clip that counts how often it was asked for."""

    def __init__(self, name: str, sigma: float) -> None:
        self.name, self.sigma, self.loads = name, sigma, 0

    def __call__(self) -> Views:
        self.loads += 1
        return blur(clean(self.name), self.sigma)


def examples(
    *, dataset: str = "bunny", sigmas: Sequence[float] = (0.0, 2.0), caption: str | None = None
) -> list[Example]:
    """Both clips at each blur; the opinion falls with it."""
    return [
        Example(
            clip_id=f"{name}-{sigma:g}",
            dataset=dataset,
            opinion=max(1.0, 4.5 - sigma - 0.25 * place),
            load=Counted(name, sigma),
            caption=caption,
        )
        for place, name in enumerate(CLIPS)
        for sigma in sigmas
    ]


def model(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """The embedded model, ready to be trained."""
    return copy.deepcopy(_read(dtype, attention))


@functools.cache
def _read(dtype: torch.dtype, attention: str) -> Any:
    return hf.AutoModelForImageTextToText.from_pretrained(
        ASSETS / "embedded", dtype=dtype, attn_implementation=attention
    )


def narrow(*, dtype: torch.dtype = torch.float32) -> Any:
    """A model of the embedded one's classes and vocabulary, ten times as cheap: two thin layers of random weights.

    It writes words without sense, for tests in which what is written does not matter. The weights are large enough for
    its words to depend on what it sees.
    """
    return copy.deepcopy(_drawn(dtype))


@functools.cache
def _drawn(dtype: torch.dtype) -> Any:
    config = hf.AutoConfig.from_pretrained(ASSETS / "embedded")
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 64, 128, 2
    text.num_attention_heads, text.num_key_value_heads, text.layer_types = 1, 1, text.layer_types[:2]
    vision.hidden_size, vision.intermediate_size, vision.num_heads, vision.depth = 48, 96, 2, 2
    vision.out_hidden_size, vision.fullatt_block_indexes = text.hidden_size, [1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = hf.AutoModelForImageTextToText.from_config(config, dtype=dtype)
        with torch.no_grad():
            for name, weight in made.named_parameters():
                if weight.ndim == 2:
                    weight.normal_(0, 0.3 if "embed_tokens" in name else weight.shape[-1] ** -0.5)
    made.generation_config = hf.GenerationConfig.from_pretrained(ASSETS / "embedded")
    return made


def processor() -> Any:
    """The embedded model's processor."""
    return copy.deepcopy(_processor())


@functools.cache
def _processor() -> Any:
    return hf.AutoProcessor.from_pretrained(ASSETS / "embedded")


def trainer(folder: Path, *, of: list[Example] | None = None, its_model: Any = None, **settings: Any) -> Any:
    """A trainer of the embedded model on `examples()`: keys of GrpoSettings are settings, others go to GRPOConfig.

    It writes checkpoints only where `save_steps` is given.
    """
    own = {name: value for name, value in settings.items() if name in GrpoSettings.model_fields}
    more = {name: value for name, value in settings.items() if name not in own}
    direct = {name: more.pop(name) for name in ("processes", "evaluate") if name in more}
    more.setdefault("save_strategy", "steps" if "save_steps" in own else "no")
    return make_trainer(
        GrpoSettings(**SMALL | own),
        its_model or model(),
        processor(),
        of or examples(),
        folder=folder,
        arguments={"use_cpu": True, "report_to": "none", "disable_tqdm": True} | more,
        **direct,
    )


def weights(its: Any) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in its.named_parameters()}
