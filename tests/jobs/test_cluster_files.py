"""The files of jobs/cluster: what Ray, Slurm and Kubernetes are given is what they take, and small."""

import functools
import importlib.resources
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from vqa.cli.app import app

FOLDER = Path("jobs/cluster").resolve()
SCHEMA = yaml.safe_load(Path("tests/references/kuberay_v1.yaml").read_text(encoding="utf-8"))


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def parse(words: list[str]) -> dict[str, Any]:
    """What `vqa` makes of a command's words; raises for an option that it does not have."""
    command, *rest = words
    assert command == "vqa"
    group = typer.main.get_command(app)
    with group.make_context("vqa", list(rest[:1]), resilient_parsing=True) as context:
        chosen = group.get_command(context, rest[0])  # type: ignore[attr-defined]
    return dict(chosen.make_context(rest[0], rest[1:]).params)


def test_the_ray_cluster_keeps_to_the_schema_that_ray_ships() -> None:
    schema = json.loads((importlib.resources.files("ray") / "autoscaler/ray-schema.json").read_text())
    config = read("ray_cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"worker_count": 3}, schema)


def check(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods of a RayJob that keeps to KubeRay's schema and Kubernetes' own."""
    jsonschema.validate(job, SCHEMA)
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **group["template"]} for group in groups]
    for pod in pods:
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    return pods


def test_the_ray_job_keeps_to_the_schemas_of_kuberay_and_kubernetes() -> None:
    job = read("rayjob.yaml")
    for pod in check(job):
        (container,) = pod["spec"]["containers"]
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    given = parse(shlex.split(job["spec"]["entrypoint"]))
    assert given["ray_address"] == "auto"


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("spec", "ttlSecondsAfterFinish"), 600, "ttlSecondsAfterFinish"),
        (("spec", "backoffLimit"), "3", "not of type 'integer'"),
        (("spec", "submissionMode"), "Http", "not one of"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0, "not of type 'string'"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"), 8, "maxReplica"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "volume"), [], "'volume' was unexpected"),
    ],
)
def test_a_wrong_ray_job_is_found_out(place: tuple[str | int, ...], value: object, says: str) -> None:
    job = read("rayjob.yaml")
    *way, last = place
    level = functools.reduce(lambda one, name: one[name], way, job)
    level[last] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError), match=says):
        check(job)


def test_what_is_sent_to_a_cluster_is_code(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tmp_path / "tree").mkdir()
    sent = ["jobs/score.py", "vqa/cli/app.py", "configs/score/certain.yaml", "vqa/assets/model.safetensors"]
    left = [
        ".git/pack",
        ".venv/bin/python",
        ".venv-vllm/x",
        "out/scores/part.parquet",
        "runs/a",
        "mine/scores/p.parquet",
    ]
    for name in (*sent, *left):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    package = tmp_path / "package.zip"
    excludes = read("runtime_env.yaml")["excludes"]
    from ray._private.runtime_env.packaging import create_package  # not to collect tests

    create_package(str(tree), package, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(package) as file:
        assert sorted(name for name in file.namelist() if not name.endswith("/")) == sorted(sent)


def commands(folder: Path, **scripts: str) -> None:
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(("linter", "name"), [("shellcheck", "slurm.sh"), ("hadolint", "Dockerfile")])
def test_linters_find_nothing(linter: str, name: str) -> None:
    said = subprocess.run(
        [str(Path(sys.executable).with_name(linter)), str(FOLDER / name)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize(("end", "code"), [("", 3), ("warned", 130)])
def test_the_slurm_script_starts_ray_and_ends_as_the_run_ends(tmp_path: Path, end: str, code: int) -> None:
    """On commands that note what they were called with; the warning before the time limit reaches the run."""
    wait = 'trap "exit 130" USR1; touch ready; while true; do sleep 0.05; done' if end else "exit 3"
    note = 'echo "$(basename "$0") $*" >> calls'
    commands(tmp_path, scontrol="printf 'n1\\nn2\\nn3\\n'", srun=note, ray=note, vqa=f"{note}\n{wait}")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "20007"}
    environment |= {"SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "16"}
    words = [str(FOLDER / "slurm.sh"), "/shared/my clips", "--out", "/shared/out"]
    run = subprocess.Popen(["bash", *words], cwd=tmp_path, env=environment)
    if end:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGUSR1)
    assert run.wait(60) == code
    wanted = [
        "srun --overlap --nodes=1 --ntasks=1 --nodelist=n1 ray start --head --node-ip-address=n1 --port=20007 "
        "--num-cpus=16 --block",
        "srun --overlap --nodes=2 --ntasks=2 --exclude=n1 ray start --address=n1:20007 --num-cpus=16 --block",
        "vqa score /shared/my clips --out /shared/out --ray-address n1:20007",
    ]
    deadline = time.monotonic() + 60
    while set(wanted) - set((tmp_path / "calls").read_text().splitlines()) and time.monotonic() < deadline:
        time.sleep(0.05)  # Ray's nodes are started beside the run
    assert set(wanted) <= set((tmp_path / "calls").read_text().splitlines())


def test_the_image_is_built_from_what_is_there(tmp_path: Path) -> None:
    """tests/image_check.sh builds it. Its instructions name files and extras that exist; no others are sent."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    steps = [line.split(maxsplit=1) for line in lines]
    assert [name for name, _ in steps if name not in ("RUN", "COPY", "ARG", "ENV", "WORKDIR")] == [
        "FROM",
        "USER",
        "CMD",
    ]
    copied = [word for name, rest in steps if name == "COPY" for word in rest.split()[:-1]]
    root = FOLDER.parents[1]
    assert all((root / word).exists() for word in copied)
    sent = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in sent if line.startswith("!")) == sorted(copied)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert set(copied) >= {"pyproject.toml", project["readme"], *project["license-files"], "constraints.txt"}
    extras = next(rest.partition("=")[2] for name, rest in steps if name == "ARG").split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    for name in copied:
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, tmp_path / name)
    built = shlex.split(f"{sys.executable} -m hatchling build -t wheel -d {tmp_path / 'dist'}")
    subprocess.run(built, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "vqa/cli/score.py",
        "jobs/score.py",
        "samplers/temporal.py",
        "vqa/configs/score/preresq_video.yaml",
    } <= names
    assert next(rest for name, rest in steps if name == "FROM").startswith("python:3.12-slim")
    assert read("rayjob.yaml")["spec"]["entrypoint"].startswith("vqa score ")
