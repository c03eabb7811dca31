"""A file that is written anew, by one process or by several at once."""

import subprocess
import sys
from pathlib import Path

from vqa.files import replacing

OTHER = """
import sys
from pathlib import Path
from vqa.files import replacing
with replacing(Path(sys.argv[1]), by_several=True) as draft:
    draft.write_text("half of ")
    print(flush=True)
    sys.stdin.read()
    with draft.open("a") as file:
        file.write("the other's")
"""


def test_two_processes_write_one_file_at_once_and_it_is_whole_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    other.stdout.readline()  # it has a draft that it is not done with
    with replacing(path, by_several=True) as draft:
        draft.write_text("ours")
    assert path.read_text() == "ours"
    other.communicate()
    assert other.returncode == 0
    assert path.read_text() == "half of the other's"
    assert list(tmp_path.iterdir()) == [path]
