"""A real NFS server of this machine, and mounts of its export as separate machines would have them.

The server is NFS-Ganesha, which needs no kernel module; a mount is nfs_mount.c. Needs root and, of Debian:
`apt-get install nfs-ganesha-vfs rpcbind libnfs-dev libfuse3-dev gcc pkg-config`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

SOURCE = Path(__file__).with_name("nfs_mount.c")
PATIENCE_SECONDS = 60.0
_CONFIG = """
NFS_CORE_PARAM {{ Protocols = 3; Bind_addr = 127.0.0.1; NFS_Port = {nfs}; MNT_Port = {mount}; NLM_Port = {nlm};
  Enable_NLM = false; Enable_RQUOTA = false; Plugins_Dir = "{plugins}"; }}
EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
  Protocols = 3; FSAL {{ Name = VFS; }} }}
"""


def what_is_missing() -> str:
    """Why no server can run here; empty where one can."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "not root, or no /dev/fuse"
    lacking = [name for name in ("ganesha.nfsd", "rpcbind", "gcc", "pkg-config", "unshare") if not shutil.which(name)]
    if lacking:
        return f"no {', '.join(lacking)} (head of tests/support/nfs.py)"
    found = subprocess.run(["pkg-config", "--exists", "libnfs", "fuse3"], check=False)
    return "no libnfs-dev, libfuse3-dev" if found.returncode else ""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def exported(folder: Path, *, mounts: int) -> Iterator[list[Path]]:
    """Folders below `folder`, each a mount of one export by a client of its own."""
    build = folder / "nfs_mount"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3", "libnfs"], capture_output=True, check=True)
    subprocess.run(["gcc", "-o", build, SOURCE, *flags.stdout.decode().split()], check=True)
    export, (nfs, mount, nlm) = folder / "export", _free_ports(3)
    export.mkdir()
    Path("/var/run/ganesha").mkdir(exist_ok=True)
    plugins = next(Path("/usr/lib").glob("*/ganesha"))
    config = folder / "ganesha.conf"
    config.write_text(_CONFIG.format(nfs=nfs, mount=mount, nlm=nlm, plugins=plugins, export=export))
    subprocess.run(["rpcbind", "-w"], check=False, capture_output=True)  # another may run already
    log = folder / "ganesha.log"
    server = subprocess.Popen(
        ["ganesha.nfsd", "-F", "-f", config, "-L", log, "-p", folder / "ganesha.pid"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    clients: list[tuple[Path, subprocess.Popen[bytes]]] = []
    url = f"nfs://127.0.0.1{export}?version=3&nfsport={nfs}&mountport={mount}"
    try:
        _wait(lambda: log.is_file() and "NFS SERVER INITIALIZED" in log.read_text(errors="replace"), str(log))
        for k in range(mounts):
            place = folder / f"mount-{k}"
            place.mkdir()
            options = "attr_timeout=0,entry_timeout=0,negative_timeout=0"
            clients.append((place, subprocess.Popen([build, url, place, "-f", "-s", "-o", options])))
            _wait(partial(os.path.ismount, place), url)
        yield [place for place, _ in clients]
    finally:
        for place, client in clients:
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)
            client.terminate()
            client.wait(PATIENCE_SECONDS)
        server.kill()
        server.wait()


def _wait(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, f"nothing heard of {what}"
        time.sleep(0.05)
