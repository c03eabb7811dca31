"""The embedded model's scores on a student's scale: `python tests/bench/link.py [SOURCE ...] [--out FILE]`.

Both tiers score the same material: distorted clips of the sources, as `vqa data synth` makes them, and, of those that
are pictures, stills with their degraded copies. The student's scores are the labels of a calibration of the reasoner's;
`--tier cascade` uses it where it lies as scale.json beside the student, for that very model. Give pictures and videos
that no test uses, such as runs/sources/train of tests/bench/embedded_sources.py; without any it takes the bundled
clips, one content, and the figures mean little.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.request import ScoreRequest, inputs_of
from jobs.score import score
from vqa.console import Engine
from vqa.data.synthetic.demo import CLIPS
from vqa.data.synthetic.ladder import find_contents, synthesise
from vqa.data.synthetic.picture_ladder import LadderConfig, find_pictures, steps
from vqa.errors import UsageError
from vqa.evaluate.calibrate import Origin, calibrate
from vqa.evaluate.inputs import read_table
from vqa.evaluate.join import join
from vqa.files import write_json
from vqa.light.card import EMBEDDED_STUDENT
from vqa.metrics import srcc

STEPS = LadderConfig(kinds=4, levels=2)


def make(sources: list[Path], folder: Path, *, clips: int, pictures: int, seed: int) -> None:
    """Fill the folder with about `clips` distorted clips, of as many contents as there are, and with stills."""
    contents = list(find_contents(sources).values())
    drawn = [contents[k][0] for k in np.random.default_rng(seed).permutation(len(contents))[:clips].tolist()]
    if drawn:
        each = -(-clips // len(drawn))
        for _ in synthesise(drawn, out=folder / "moving", clips_per_content=each, seed=seed, workers=1, split="train"):
            pass
    try:
        found = find_pictures(sources, most=pictures, seed=seed) if pictures else []
    except UsageError:
        found = []  # videos alone
    (folder / "stills").mkdir(parents=True)
    for number, path in enumerate(found):
        for step in steps(path, STEPS):
            Image.fromarray(step.pixels).save(folder / f"stills/{number}-{step.kind}-{step.level}.png")


def main(sources: list[Path], student: Path, out: Path | None, *, clips: int, pictures: int, seed: int) -> None:
    """Print how the tiers agree, before and after; write the calibration where `out` is given."""
    with tempfile.TemporaryDirectory() as name:
        material = Path(name) / "material"
        make(sources, material, clips=clips, pictures=pictures, seed=seed)
        tables, inputs = [], []
        for tier in ("reason", "light"):
            request = ScoreRequest(
                sources=(str(material),),
                out=Path(name) / tier,
                tier=tier,
                student=student if tier == "light" else None,
                engine=Engine.LOCAL,
            )
            inputs.append(inputs_of(request))
            if code := score(request):
                raise SystemExit(code)
            tables.append(read_table(request.out))
        joined = join(*tables, mos_column="score")
        reasoner, light = inputs
        origin = Origin(
            scores=f"{reasoner.model_id} {reasoner.model_revision}",
            labels=f"{light.model_id} {light.model_revision}",
            model_id=reasoner.model_id,
            model_revision=reasoner.model_revision,
            settings=reasoner.settings,
        )
        made = calibrate(joined.pairings, origin=origin, seed=seed)
    own, wanted = (np.array([getattr(one, key) for one in joined.pairings if one.used]) for key in ("score", "mos"))
    linked = made.mos(own)[0]
    print(f"{len(own)} clips and stills; SRCC of the two tiers {srcc(own, wanted):.3f}")
    for what, scores in (("before", own), ("after", linked)):
        off = scores - wanted
        print(f"{what}: reasoner minus student {off.mean():+.3f}, root mean square {np.sqrt((off**2).mean()):.3f}")
    print(f"left out: {made.test.rmse:.3f}")
    if out:
        write_json(out, made.model_dump(mode="json"))
        print(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, default=[CLIPS])
    parser.add_argument("--student", type=Path, default=EMBEDDED_STUDENT)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    main(given.pop("sources"), given.pop("student"), given.pop("out"), **given)
