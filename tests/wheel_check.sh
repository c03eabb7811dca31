#!/usr/bin/env bash
# Builds the wheel, installs it in a clean environment outside the checkout, and scores a bundled clip there. Not part of the test run.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$root/.venv/bin/uv" build --quiet --wheel --out-dir "$place/dist" "$root"
python3 -m venv "$place/venv"
"$root/.venv/bin/uv" pip install --quiet --python "$place/venv/bin/python" --constraint "$root/constraints.txt" "$place"/dist/*.whl
cd "$place"
cp "$root/vqa/assets/clips/big_buck_bunny_end.mp4" .
env -u PYTHONPATH venv/bin/vqa score big_buck_bunny_end.mp4 --out out
env -u PYTHONPATH venv/bin/python -c '
import pathlib, vqa
assert "venv" in pathlib.Path(vqa.__file__).parts, vqa.__file__
from vqa import Scorer
score = Scorer.load("embedded").score_file("big_buck_bunny_end.mp4")
assert score.score is not None and 1 <= score.score <= 5, score
print(score)
'
echo "wheel check passed"
