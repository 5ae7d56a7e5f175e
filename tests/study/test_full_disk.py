"""A full disk: one sentence that says what to do, nothing half-written, and the same call continues."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from minutia.core.errors import FileError
from minutia.storage.models import ModelStore
from minutia.study.engines import Local
from minutia.study.work import Made, perform

REMEDY = "free some space, then the same command continues"
JOBS = 40


@dataclass(frozen=True)
class Heap:
    """Leaves a file of so many bytes, and writes down elsewhere that it did."""

    number: int
    log: str
    size: int
    bundle: str = ""
    label: str = "heap"
    files: tuple[str, ...] = ()
    data_sets: tuple[str, ...] = ()

    @property
    def digest(self):
        return f"heap {self.number}"

    @property
    def content(self):
        return bytes([self.number % 251]) * self.size

    @classmethod
    def make(cls, root, jobs):
        with Path(jobs[0].log).open("a") as file:
            file.write("".join(f"{job.number}\n" for job in jobs))
        return [
            Made(
                {"number": job.number, "text": "" if job.size else "x" * 3000},
                {f"models/{sha256(job.content).hexdigest()}.safetensors": job.content} if job.size else {},
            )
            for job in jobs
        ]


def heaps(log, size):
    return [Heap(n, str(log), size) for n in range(JOBS)]


def noted(root, log, size):
    return set(ModelStore(root).results(job.digest for job in heaps(log, size)))


def half_written(root):
    """Temporary files, and files whose content is not that of their name."""
    return [
        path.name
        for path in (root / "models").iterdir()
        if path.name.startswith(".") or sha256(path.read_bytes()).hexdigest() != path.stem
    ]


def check_what_is_left(root, log, size):
    """Everything that is there is whole and was noted; at most one job was done and not noted."""
    known = noted(root, log, size)
    assert not half_written(root)
    assert 0 < len(known) < JOBS, "the disk was full too early or never: nothing was tested"
    assert len(log.read_text().split()) == len(known) + 1, "it stopped at the first job that did not fit"
    return known


def check_the_end(root, log, size, known):
    values = perform(ModelStore(root), heaps(log, size), Local(1))
    assert [value["number"] for value in values] == list(range(JOBS)) and not half_written(root)
    times = Counter(int(line) for line in log.read_text().split())
    assert set(times) == set(range(JOBS))
    assert all(times[int(digest.split()[1])] == 1 for digest in known), "what was noted was done again"


# --- a small disk of memory, where that may be mounted


@pytest.fixture
def disk(tmp_path):
    """256 kB that are all there is."""
    place = tmp_path / "disk"
    place.mkdir()
    if not shutil.which("mount"):
        pytest.skip("no mount on this machine")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("a file system in memory may not be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize(("size", "where"), [(30_000, "models"), (0, "journal")])
def test_a_disk_that_is_full_in_the_middle(disk, tmp_path, size, where):
    root, log = disk / "store", tmp_path / "log"
    filler = disk / "filler"
    ModelStore(root).journal.close()
    filler.write_bytes(bytes(4096 * 20))
    if not size:  # only the journal grows: leave it next to nothing
        rest = shutil.disk_usage(disk).free
        (disk / "more").write_bytes(bytes(rest - 4096 * 12))
    with pytest.raises(FileError, match=f"{where}.*{REMEDY}"):
        perform(ModelStore(root), heaps(log, size), Local(1))
    known = check_what_is_left(root, log, size)
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    check_the_end(root, log, size, known)


# --- a limit on the size of files, which every machine has


LIMITED = """
import resource
import signal
import sys
from pathlib import Path

import test_full_disk as own
from minutia.core.errors import FileError
from minutia.storage.models import ModelStore
from minutia.study.engines import Local
from minutia.study.work import perform

root, log, size, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
store = ModelStore(root)
small = [own.Heap(n, str(log), 0) for n in range(3)]
perform(store, small, Local(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    perform(store, own.heaps(log, size), Local(1))
except FileError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of this kind are POSIX")
@pytest.mark.parametrize(("size", "limit", "where"), [(600_000, 300_000, "models"), (0, 65_536, "journal")])
def test_a_file_that_may_not_grow(tmp_path, size, limit, where):
    root, log = tmp_path / "store", tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, root, log, str(size), str(limit)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert where in done.stdout and REMEDY in done.stdout, done.stderr
    check_the_end(root, log, size, check_what_is_left(root, log, size))
