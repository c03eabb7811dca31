"""`vqa doctor`: what is installed, and a bundled clip scored. Light to import."""

import importlib.util
import json
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vqa import machine
from vqa.console import printable
from vqa.errors import ClipError, VqaError

CLIP = Path(__file__).parents[1] / "assets" / "clips" / "big_buck_bunny_end.mp4"


def doctor(json_report: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False) -> None:
    """Check this machine: versions, decoders, codecs, GPUs, and score a bundled clip."""
    raise typer.Exit(0 if examine(as_json=json_report) else 1)


def examine(*, as_json: bool = False) -> bool:
    """Print the findings; True where the self test passed."""
    from jobs.run_record import PACKAGES, versions
    from vqa.media.backends.registry import backend_states, codec_support, ffmpeg_versions

    packages = (*PACKAGES, "torchvision", "imageio-ffmpeg", "pydantic")
    test = self_test()
    findings = {
        "versions": dict.fromkeys(("python", *packages)) | versions(packages),
        "machine": {
            "platform": platform.platform(),
            "cores": machine.cores(),
            "memory_gib": round(machine.memory_bytes() / 2**30, 1),
            "shared_memory_gib": round(machine.shared_memory_bytes() / 2**30, 1),
        },
        "gpus": _gpus(),
        "keeps_bytecode": _keeps_bytecode(),
        "decoders": backend_states(),
        "codecs": codec_support(),
        "ffmpeg": ffmpeg_versions(),
        "self_test": test,
    }
    if as_json:
        print(json.dumps(findings))
    else:
        _show(findings)
    return bool(test["passed"])


def self_test() -> dict[str, bool | str | float | None]:
    """Score a bundled clip by the embedded model, decoded in the guarded child."""
    started = time.perf_counter()
    try:
        from vqa import Scorer  # torch: seconds

        score = Scorer.load().score_file(CLIP)
    except (VqaError, ClipError, OSError, RuntimeError, ImportError) as error:
        return {"passed": False, "why": f"{type(error).__name__}: {error}", "seconds": time.perf_counter() - started}
    passed = score.score is not None
    why = "" if passed else f"the answer holds no score: {score.answers[0].text[:200]!r}"
    return {"passed": passed, "why": why, "score": score.score, "seconds": time.perf_counter() - started}


def _keeps_bytecode() -> bool:
    """Whether imports find torch's bytecode; call it when torch has been imported."""
    import torch

    return Path(importlib.util.cache_from_source(torch.__file__)).is_file()


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _show(findings: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for name in ("versions", "machine", "ffmpeg"):
        text = ", ".join(f"{key} {value or 'missing'}" for key, value in findings[name].items())
        table.add_row(name, Text(text))
    table.add_row("GPUs", Text(", ".join(findings["gpus"]) or "none: the model runs on the CPU"))
    if not findings["keeps_bytecode"]:
        text = (
            "not kept: every process compiles torch, transformers and Ray anew, and a job takes 20 s longer to start; "
            "unset PYTHONDONTWRITEBYTECODE, or give `python -m compileall SITE-PACKAGES` once"
        )
        table.add_row("bytecode", Text(text))
    for name, state in findings["decoders"].items():
        table.add_row("decoder", Text(f"{name}: {printable(state)}"))
    codecs_here = ", ".join(key if there else f"{key} (missing)" for key, there in findings["codecs"].items())
    table.add_row("codecs", Text(codecs_here))
    test = findings["self_test"]
    verdict = f"passed, a clip scored {test['score']:.2f}" if test["passed"] else f"FAILED: {printable(test['why'])}"
    table.add_row("self test", Text(f"{verdict} ({test['seconds']:.1f} s with start-up)"))
    Console().print(table)
