"""Video and image files: packet tables, exact frames, and the child process that can be killed."""

from vqa.media.decode import BACKENDS, BackendName, decode
from vqa.media.fingerprint import fingerprint
from vqa.media.guard import Guard
from vqa.media.probe import PacketTable, probe

__all__ = ["BACKENDS", "BackendName", "Guard", "PacketTable", "decode", "fingerprint", "probe"]
