"""Jobs that look around on the node they are done on, or fail there."""

import os
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from minutia.core.errors import FileError
from minutia.study.work import Made

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Look:
    """Says where it is done; long enough for a second node to take its share."""

    number: int
    seconds: float = 0.5
    bundle: str = ""
    label: str = "look"
    files: tuple[str, ...] = ()
    data_sets: tuple[str, ...] = ()

    @property
    def digest(self):
        return f"look {self.number}"

    @classmethod
    def make(cls, root, jobs):
        import ray

        time.sleep(jobs[0].seconds)
        here = {
            "node": ray.get_runtime_context().get_node_id(),
            "threads": [os.environ.get(name) for name in THREADS],
            "device": os.environ.get("MINUTIA_DEVICE"),
            "folder": str(Path.cwd()),
            "root": str(root),
        }
        return [Made({"number": job.number, **here}) for job in jobs]


@dataclass(frozen=True)
class Fail:
    """Fails in that way."""

    how: str
    bundle: str = ""
    label: str = "fail"
    data_sets: tuple[str, ...] = ()

    @property
    def digest(self):
        return f"fail {self.how}"

    @property
    def files(self):
        return (f"models/{sha256(b'nowhere').hexdigest()}.safetensors",) if self.how == "missing" else ()

    @classmethod
    def make(cls, root, jobs):
        how = jobs[0].how
        if how == "exit":
            os._exit(9)  # as the kernel does when memory runs out
        if how:
            raise {"file": FileError, "disk": OSError, "value": ValueError}[how]("no luck")
        return [Made({"done": 1}) for _ in jobs]
