"""Does GRPO teach anything? `python tests/bench/learning.py --ladder DIR [--model M --cold N] [--seeds 3]`.

For each preset of `--presets` the GRPO stages of its tiny recipe (configs/train/*_tiny.yaml) run on the ladder's train
contents once for each seed, all from the same start: the model M, or what N steps of embedded.yaml's cold start make of
it (then M is the folder of a warm-up: OUT/warmup/model). The held-out clips' SRCC and PLCC, one greedy answer read as
scoring reads it, are noted before, on the way and after. Prints a table and draws `learning.png`. A broken run goes on
where it stopped.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import yaml
from PIL import Image, ImageDraw

from vqa.report import canvas
from vqa.train.recipe import load_recipe
from vqa.train.runner import run_recipe

RECIPES = Path(__file__).parents[2] / "configs/train"
LEFT, TOP, WIDTH, HEIGHT = 60, 48, 420, 240


def recipe(presets: list[str], *, seeds: int, steps: int, model: str, cold: int, held_out: int, folder: Path) -> Path:
    """One recipe of all runs, so that each clip is looked at once; returns its file."""
    stages = []
    start = "base"
    if cold:
        known = yaml.safe_load((RECIPES / "embedded.yaml").read_text())["stages"]
        start = "coldstart"
        stages += [stage | {"name": start, "max_steps": cold} for stage in known if stage["kind"] == "coldstart"]
    for preset in presets:
        tiny = yaml.safe_load((RECIPES / f"{preset}_tiny.yaml").read_text())
        parts = [stage for stage in tiny["stages"] if stage["kind"] == "grpo"]
        for seed in range(seeds):
            before = start
            for number, stage in enumerate(parts):
                name = f"{preset}-{seed}-{number}"
                own = steps // len(parts)
                length = {"max_steps": own, "eval_steps": max(1, steps // 4), "save_steps": own}
                stages.append(stage | length | {"name": name, "start": before, "seed": seed})
                before = name
    whole = {"start": model, "card": "embedded", "validation_clips": held_out, "threads": 2, "stages": stages}
    path = folder / "learning.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


Curves = dict[str, dict[int, list[tuple[int, float, float, float]]]]


def curves(log: Path) -> Curves:
    """preset -> seed -> (step, SRCC, PLCC, share read) on the held-out clips."""
    found: Curves = defaultdict(lambda: defaultdict(list))
    lines = {}
    for text in log.read_text().splitlines():
        line = json.loads(text)
        if "held_out/srcc" in line and line["stage"].count("-") == 2:
            lines[line["stage"], line["step"]] = line  # a part that ran twice counts once
    for line in lines.values():
        preset, seed, part = line["stage"].split("-")
        if line["step"] or part == "0":
            step = int(part) * line["steps"] + line["step"]
            found[preset][int(seed)].append((step, *(line[f"held_out/{name}"] for name in ("srcc", "plcc", "parsed"))))
    return found


def draw(found: Curves) -> Image.Image:
    """A panel for each preset: held-out SRCC against steps, a line for each seed."""
    page = Image.new("RGB", (WIDTH * len(found), HEIGHT + TOP + 50), canvas.PAPER)
    pen = ImageDraw.Draw(page)
    values = [srcc for seeds in found.values() for points in seeds.values() for _, srcc, *_ in points]
    step = canvas.nice((max(values) - min(values)) / 4)
    low, high = np.floor(min(values) / step) * step, np.ceil(max(values) / step) * step
    for panel, (preset, seeds) in enumerate(found.items()):
        x0, x1 = panel * WIDTH + LEFT, (panel + 1) * WIDTH - 20
        last = max(step for points in seeds.values() for step, *_ in points)
        canvas.text(pen, (x0, 14), f"{preset}: SRCC on held-out clips", size=14)
        for tick in np.arange(low, high + step / 2, step):
            y = TOP + round((high - tick) / (high - low) * HEIGHT)
            pen.line((x0, y, x1, y), fill=canvas.RULE)
            canvas.text(pen, (x0 - 6, y), f"{tick:.3g}", size=12, fill=canvas.QUIET, anchor="rm")
        for tick in (0, last):
            x = x0 + round(tick / last * (x1 - x0))
            canvas.text(pen, (x, TOP + HEIGHT + 8), str(tick), size=12, fill=canvas.QUIET, anchor="ma")
        canvas.text(pen, ((x0 + x1) // 2, TOP + HEIGHT + 24), "steps of GRPO", size=12, anchor="ma")
        for seed, points in seeds.items():
            line = [
                (x0 + at / last * (x1 - x0), TOP + (high - srcc) / (high - low) * HEIGHT) for at, srcc, *_ in points
            ]
            pen.line(line, fill=canvas.colour(seed), width=2, joint="curve")
    return page


def main() -> None:
    """Runs what is missing, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladder", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--cold", type=int, default=0, help="steps of cold start that go before")
    parser.add_argument("--presets", nargs="+", default=["preresq_video", "visualquality_r1"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("build/bench/learning"))
    asked = parser.parse_args()
    if asked.ladder is None:
        print("no --ladder: the learning curve is not measured (make one: vqa data synth)")
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    given = {"seeds": asked.seeds, "steps": asked.steps, "model": asked.model, "cold": asked.cold}
    path = recipe(asked.presets, **given, held_out=asked.held_out, folder=asked.out)
    run_recipe(load_recipe(path), out=asked.out / "run", data=[asked.ladder])
    found = curves(asked.out / "run" / "log.jsonl")
    print(f"{'preset':18}{'seeds':>6}{'before':>9}{'after':>9}{'gain':>9}{'spread':>9}   SRCC; PLCC gain; read")
    for preset, seeds in found.items():
        before, after = ([points[end][1] for points in seeds.values()] for end in (0, -1))
        gains = [late - early for early, late in zip(before, after, strict=True)]
        linear = mean(points[-1][2] - points[0][2] for points in seeds.values())
        read = "  ".join(f"{mean(points[end][3] for points in seeds.values()):.0%}" for end in (0, -1))
        spread = stdev(gains) if len(gains) > 1 else float("nan")
        print(
            f"{preset:18}{len(seeds):6}{mean(before):9.3f}{mean(after):9.3f}{mean(gains):+9.3f}{spread:9.3f}   "
            f"{linear:+.3f}   {read}"
        )
    draw(found).save(asked.out / "learning.png")
    print(f"picture: {asked.out / 'learning.png'}")


if __name__ == "__main__":
    main()
