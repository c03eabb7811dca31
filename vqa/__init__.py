"""Video quality by a reasoning video MLLM: a score on 1-5, its spread, a reason."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqa.model.scorer import Scorer

__all__ = ["Scorer"]


def __getattr__(name: str) -> object:
    """Load `Scorer` on first access, so that `import vqa` loads no torch."""
    if name == "Scorer":
        from vqa.imports import uncollected

        with uncollected():
            from vqa.model.scorer import Scorer

        return Scorer
    raise AttributeError(f"module 'vqa' has no attribute {name!r}")
