"""The embedded model's files; what it answers about the demo clips is in tests/docs/test_howto.py."""

from vqa.model.resolve import EMBEDDED


def test_weights_are_small_and_safe() -> None:
    assert {path.suffix for path in EMBEDDED.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
    assert (EMBEDDED / "model.safetensors").stat().st_size <= 40 * 2**20
