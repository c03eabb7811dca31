"""The lock that needs no locks: one run at a time, whoever was killed, paused or is on another machine."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import lease
from jobs.lease import FilePlace, Lease, ObjectPlace, Place, is_shared
from vqa.errors import UsageError, VqaError


@pytest.fixture(params=["file", "object"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        return FilePlace(tmp_path / "lock")
    return ObjectPlace(f"{request.getfixturevalue('bucket')}/{tmp_path.name}/lock")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "LOST_SECONDS", 3.0)


def test_of_two_that_live_the_second_is_refused(place: Place) -> None:
    with Lease(place, out="out").held() as first:
        said = r"another run \(process \d+ on .*\) is writing there"
        with pytest.raises(UsageError, match=said), Lease(place, out="out").held():
            pytest.fail("two at once")
        first.check()
    assert place.read() is None


def test_one_that_died_elsewhere_is_followed_and_a_paused_one_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "LOST_SECONDS", 0.5)
    paused = Lease(place, out="out")
    paused._take()  # and no beat, as of a machine that stands still
    monkeypatch.setattr(lease, "this_run", lambda: "process 1 on elsewhere")
    paused.check()
    with Lease(place, out="out").held() as second:
        second.check()
        with pytest.raises(VqaError, match="another run has taken over, as nothing was heard of this one"):
            paused.check()
    assert "was writing there; waiting 0.5 s for a sign of life" in capsys.readouterr().err
    assert place.read() is None


def test_only_one_of_those_that_try_makes_it(place: Place) -> None:
    assert place.create("one")
    assert not place.create("two")
    assert place.read() == "one"
    place.write("1")
    assert place.read() == "1"
    place.delete()
    place.delete()
    assert place.read() is None


def test_a_holder_that_is_slow_to_beat_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LOST_SECONDS", 500.0)  # a write to the store may take long under load
    assert place.create("process 1 on elsewhere\ntoken 1")
    began = time.monotonic()
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: beat(place)))
    with pytest.raises(UsageError, match="process 1 on elsewhere"), Lease(place, out="out").held():
        pytest.fail("it lives")
    assert time.monotonic() - began < 400


def beat(place: Place) -> None:
    place.write("process 1 on elsewhere\ntoken 2")


@pytest.mark.parametrize(
    ("folder", "shared"),
    [
        ("data/out", True),
        ("data/out/own disk", False),
        ("data/sshfs mount/deep", True),
        ("stick", False),
        ("database", False),
        ("", False),
    ],
)
def test_file_systems_that_other_machines_see_are_told_by_their_type(tmp_path: Path, folder: str, shared: bool) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    types = {
        "": "ext4 /dev/vda rw",
        "data": "nfs4 server:/data rw,local_lock=all",
        "data/out/own disk": "xfs /dev/vdb rw",
        "data/sshfs mount": "fuse.sshfs user@host:/ rw",
        "stick": "fuseblk /dev/sdc1 rw",
    }
    mounts = tmp_path / "mountinfo"
    places = {str(tmp_path / name).replace(" ", r"\040"): what for name, what in types.items()}
    lines = [f"{36 + k} 35 98:0 / {place} rw master:1 - {what}\n" for k, (place, what) in enumerate(places.items())]
    mounts.write_text("36 35 98:0 / / rw - overlay overlay rw\n" + "".join(lines))
    assert is_shared(tmp_path / folder, mounts=mounts) is shared
    for kind in ("nfs4", "xfs"):  # mounted over what is there
        with mounts.open("a") as file:
            file.write(f"90 35 98:0 / {str(tmp_path / folder).replace(' ', chr(92) + '040')} rw - {kind} x rw\n")
        assert is_shared(tmp_path / folder, mounts=mounts) is (kind == "nfs4")
    assert not is_shared(tmp_path / folder, mounts=tmp_path / "none")
