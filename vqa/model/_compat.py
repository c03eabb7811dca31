"""Undocumented calls into transformers, each with its reason and a contract test."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed
from torch._compile import _disable_dynamo
from transformers.utils import import_utils

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

T = TypeVar("T")
_SYMBOLS = "torch.fx.experimental.symbolic_shapes"
Structure = dict[frozenset[str], dict[str, set[str]]]  # by the packages they need: modules and their classes


def position_ids(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Positions of a prompt's tokens as `generate` counts them, [..., 1, length].

    Families count differently (Qwen: text, time, height, width), and only this method of transformers knows how. It is
    the entry point of https://github.com/huggingface/transformers/pull/43734; after the prompt each token adds one.
    """
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    positions: Tensor = model._prepare_position_ids_for_generation(inputs["input_ids"], others)
    return positions


def attention_of(model: "PreTrainedModel") -> str:
    """Name of the attention that the model runs with, such as `sdpa` or `eager`.

    There is a public setter (`set_attn_implementation`) and no public getter; transformers' own tests read this
    attribute too (https://github.com/huggingface/transformers/pull/32383).
    """
    return str(model.config._attn_implementation)


def named_attention(config: "PreTrainedConfig") -> str | None:
    """Attention that a folder's config.json names, or None; see `attention_of`."""
    named: str | None = getattr(config, "_attn_implementation", None)
    return named


def forget_attention(config: "PreTrainedConfig") -> None:
    """Clear the attention that config.json names, which no public setter does."""
    config._attn_implementation = None


# What transformers and torchvision import with every model, and call only to compile, to place weights on several
# devices, for adapters, for losses of detection and for models of torchvision's own: half of the time that importing
# them takes.
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
    _SYMBOLS: (
        *("expect_true", "guard_or_false", "guard_or_true", "statically_known_true"),
        *("guard_size_oblivious", "sym_and", "sym_or", "sym_eq", "is_nested_int"),
        *("has_free_unbacked_symbols", "has_guarding_hint", "guarding_hint_or_throw"),
    ),
    "sympy": ("Basic",),
    "torchvision.datasets": (),
    "torchvision.models": (),
}


# What functions of `symbolic_shapes` say of plain numbers, as sizes are where nothing is traced. Importing the module
# imports sympy: 0.7 s.
_OF_NUMBERS: dict[str, Callable[[Sequence[Any]], bool]] = {
    **dict.fromkeys(("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious"), all),
    **{"statically_known_true": all, "sym_and": all, "sym_or": any},
    "sym_eq": lambda pair: tuple(pair[0]) == tuple(pair[1]),
    "is_nested_int": lambda _: False,
}


def late_imports(function: Callable[[], T], *, alone: bool = False) -> T:
    """Run `function` with imports from the modules of _LATE deferred to their use.

    Where it needs more of them, as another version of transformers may, it is called again with all imports as ever.

    `alone`: this process shares no model with others and compiles none. transformers is told, for good, that torch has
    no `torch.distributed`, as builds for macOS have none, and does not import distributed tensors and FSDP; torch's
    questions about sizes are answered without its module for symbols until one is about a symbol.
    """
    with suppress(ImportError), _stand_ins(alone), _one_reading(), _undistributed(alone):
        return function()
    return function()


@contextmanager
def _undistributed(alone: bool) -> Iterator[None]:
    is_available = distributed.is_available
    if alone:
        distributed.is_available = lambda: False  # transformers asks once and remembers
    try:
        yield
    finally:
        distributed.is_available = is_available


@contextmanager
def _one_reading() -> Iterator[None]:
    """Let `transformers.models` reuse what `import transformers` has read.

    Both list their classes by the same 2000 files; transformers' cache of 128 folders is too small for the second to
    find anything.
    """
    define = import_utils.define_import_structure
    folder = Path(import_utils.__file__).parents[1] / "models"

    def known(module_path: str, prefix: str | None = None) -> Structure:
        if prefix is not None or Path(module_path) != folder / "__init__.py":
            return define(module_path, prefix)
        read = define(folder, prefix="models")  # as `import transformers` has called it
        return {
            needs: {name[7:]: classes for name, classes in modules.items() if name.startswith("models.")}
            for needs, modules in read.items()
        }

    import_utils.define_import_structure = known  # type: ignore[assignment]  # without the means to empty a cache
    try:
        yield
    finally:
        import_utils.define_import_structure = define


class _Late:
    """Function or class that is imported when called or asked for an attribute."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def __call__(self, *args: object, **kwargs: object) -> object:
        module, name = self._place
        if module == _SYMBOLS and name in _OF_NUMBERS and _are_numbers(args):
            return _OF_NUMBERS[name](args)
        return _imported(module, name)(*args, **kwargs)

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
        if self.__name__ == "sympy":
            return _Nothing
        return _unchanged if self.__name__ == "torch._dynamo" else _Late(self.__name__, name)


class _Nothing:
    """Stand-in for sympy's class of symbols: nothing is one."""


def _unchanged(function: Callable[..., object], *_: object, **__: object) -> Callable[..., object]:
    """Stand-in for marks for the compiler (fp8 kernels, arithmetic without a device)."""
    return function


def _imported(module: str, name: str) -> Any:
    package = _package(module)
    for other in _LATE:
        if _package(other) == package and isinstance(sys.modules.get(other), _StandIn):
            del sys.modules[other]
    return getattr(import_module(module), name)


def _package(module: str) -> list[str]:
    """Package imported as one, by name: torch.X, or the top one; torch.fx for sympy."""
    return module.split(".")[: 2 if module.startswith("torch.") else 1] if module != "sympy" else _package(_SYMBOLS)


def _are_numbers(values: Iterable[object]) -> bool:
    """Whether these are bools, integers or lists of such, and no symbols of torch."""
    return all(
        _are_numbers(value) if isinstance(value, tuple | list) else isinstance(value, int | bool) for value in values
    )


@contextmanager
def _stand_ins(alone: bool) -> Iterator[None]:
    loaded = tuple(name for name in _LATE if name in sys.modules)  # these stay, with all below them
    made = {name: _StandIn(name) for name in _LATE if not name.startswith(loaded)}
    sys.modules |= made
    disable = torch.compiler.disable
    torch.compiler.disable = _disable_dynamo  # type: ignore[assignment]  # imports dynamo when the function is called
    try:
        yield
        if alone:
            made.pop(_SYMBOLS, None)  # torch asks it in every check of a tensor
    finally:
        torch.compiler.disable = disable
        for name in made:
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]
