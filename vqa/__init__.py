"""Video quality assessment by a reasoning video MLLM: a score on 1-5, its spread, and a short reason."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqa.model.scorer import Scorer

__all__ = ["Scorer"]


def __getattr__(name: str) -> object:
    """Load `Scorer` on first access: `import vqa` imports neither torch nor transformers."""
    if name == "Scorer":
        from vqa.imports import uncollected

        with uncollected():
            from vqa.model.scorer import Scorer

        return Scorer
    raise AttributeError(f"module 'vqa' has no attribute {name!r}")
