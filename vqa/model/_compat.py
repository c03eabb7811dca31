"""Calls into transformers that it does not document, each with its reason; tests/contracts holds a test of each."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


def position_ids(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Positions of a prompt's tokens as `generate` counts them, [..., 1, length].

    Families count differently (Qwen: text, time, height, width), and only this method of transformers knows how. It is
    the entry point of https://github.com/huggingface/transformers/pull/43734; after the prompt each token adds one.
    """
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    positions: Tensor = model._prepare_position_ids_for_generation(inputs["input_ids"], others)
    return positions


def attention_of(model: "PreTrainedModel") -> str:
    """Name of the attention implementation that the model runs with, such as `sdpa` or `eager`.

    There is a public setter (`set_attn_implementation`) and no public getter; transformers' own tests read this
    attribute too (https://github.com/huggingface/transformers/pull/32383).
    """
    return str(model.config._attn_implementation)


# What transformers and torchvision import with every model, and call only to compile, to place weights on several
# devices, for adapters and for losses of detection: half of the time that importing them takes.
_LATE = {
    "accelerate": ("PartialState", "dispatch_model"),
    "accelerate.hooks": ("AlignDevicesHook", "add_hook_to_module"),
    "accelerate.utils": (
        "extract_model_from_parallel",
        "get_balanced_memory",
        "get_max_memory",
        "infer_auto_device_map",
        "reduce",
    ),
    "accelerate.utils.modeling": ("clean_device_map", "get_max_layer_size"),
    "scipy.optimize": ("linear_sum_assignment",),
    "torch._dynamo": ("allow_in_graph", "assume_constant_result", "disable"),
    "torch._dynamo._trace_wrapped_higher_order_op": ("TransformGetItemToIndex",),
    "torch._dynamo.utils": ("is_compile_supported",),
}


def late_imports(function: Callable[[], T]) -> T:
    """What `function` returns, which imports from the modules of _LATE only what it calls.

    Where it needs more of them, as another version of transformers may, it is called again with all imports as ever.
    """
    with suppress(ImportError), _stand_ins():
        return function()
    return function()


class _Late:
    """A function or class that is imported when it is called, or asked for an attribute."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def __call__(self, *args: object, **kwargs: object) -> object:
        return _imported(*self._place)(*args, **kwargs)

    def __getattr__(self, name: str) -> object:
        return getattr(_imported(*self._place), name)


class _StandIn(ModuleType):
    """A module of _LATE while others import from it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # transformers asks whether there is one

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # of a package: to import more of it is an ImportError
            raise AttributeError(name)
        if name not in _LATE[self.__name__]:
            return _imported(self.__name__, name)
        return _unchanged if self.__name__ == "torch._dynamo" else _Late(self.__name__, name)


def _unchanged(function: Callable[..., object], *_: object, **__: object) -> Callable[..., object]:
    """In place of marks for the compiler: on loaders of kernels for fp8, and on arithmetic without a device."""
    return function


def _imported(module: str, name: str) -> Any:
    package = module.partition(".")[0]
    for other in _LATE:
        if other.partition(".")[0] == package and isinstance(sys.modules.get(other), _StandIn):
            del sys.modules[other]
    return getattr(import_module(module), name)


@contextmanager
def _stand_ins() -> Iterator[None]:
    loaded = tuple(name for name in _LATE if name in sys.modules)  # these stay, with all below them
    sys.modules |= {name: _StandIn(name) for name in _LATE if not name.startswith(loaded)}
    disable = torch.compiler.disable
    torch.compiler.disable = _disable_dynamo  # type: ignore[assignment]  # imports dynamo when the function is called
    try:
        yield
    finally:
        torch.compiler.disable = disable
        for name in _LATE:
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]
