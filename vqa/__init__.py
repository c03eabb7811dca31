"""How good a video looks, as a person would judge it: a score on 1-5, how sure it is, and a short reason."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqa.model.scorer import Scorer

__all__ = ["Scorer"]


def __getattr__(name: str) -> Any:
    """`from vqa import Scorer`, loaded when asked for: `import vqa` brings neither torch nor transformers."""
    if name == "Scorer":
        from vqa.model.scorer import Scorer

        return Scorer
    raise AttributeError(f"module 'vqa' has no attribute {name!r}")
