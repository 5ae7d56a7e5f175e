"""Jobs: done once, kept when finished, in order, and broken ones spoil no others."""

import sys
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.core.errors import FileError, MissingExtraError, ModelError, UsageError
from minutia.storage.models import ModelStore
from minutia.study.engines import Local, engine
from minutia.study.work import MOST_TOGETHER, Made, bundled, perform, reason, work


@dataclass(frozen=True)
class Square:
    """Squares its number, writes down that it did, and leaves a file if asked to."""

    number: int
    log: str = ""
    bundle: str = ""
    filed: bool = False
    breaks: str = ""
    label: str = "square"
    files: tuple[str, ...] = ()
    data_sets: tuple[str, ...] = ()

    @property
    def digest(self):
        return f"square {self.number}"

    @classmethod
    def make(cls, root, jobs):
        for job in jobs:
            with Path(job.log).open("a") as file:
                file.write(f"{job.number}\n")
            if job.breaks:
                raise {
                    "value": ValueError,
                    "model": ModelError,
                    "file": FileError,
                    "disk": OSError,
                    "package": ImportError,
                }[job.breaks]("no\n  luck")
        return [Made({"square": job.number**2}, {name_of(job.number): b"x"} if job.filed else {}) for job in jobs]


@dataclass(frozen=True)
class Cube(Square):
    @property
    def digest(self):
        return f"cube {self.number}"


def name_of(number):
    return f"models/{sha256(str(number).encode()).hexdigest()}.safetensors"


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").touch()
    return str(tmp_path / "log")


def done(log):
    """How often each number was squared."""
    return Counter(int(line) for line in Path(log).read_text().split())


# --- once, in order, kept


def test_values_come_in_the_order_of_the_jobs(store, log):
    jobs = [Square(n, log) for n in (3, 1, 2, 1)]
    assert perform(store, jobs, Local(1)) == [{"square": 9}, {"square": 1}, {"square": 4}, {"square": 1}]
    assert done(log) == {1: 1, 2: 1, 3: 1}, "equal jobs are done once"


def test_nothing_is_done_twice_even_by_a_new_store(store, log):
    first = perform(store, [Square(n, log) for n in range(4)], Local(1))
    again = perform(ModelStore(store.root), [Square(n, log) for n in range(6)], Local(1))
    assert again[:4] == first and done(log) == dict.fromkeys(range(6), 1)


def test_no_jobs_need_no_engine(store):
    assert perform(store, [], Local(1)) == []


def test_a_job_whose_file_is_lost_is_done_again(store, log):
    jobs = [Square(n, log, filed=True) for n in range(3)]
    perform(store, jobs, Local(1))
    assert (store.root / name_of(1)).read_bytes() == b"x"
    (store.root / name_of(1)).unlink()
    assert perform(store, jobs, Local(1))[1] == {"square": 1}
    assert done(log) == {0: 1, 1: 2, 2: 1} and (store.root / name_of(1)).is_file()


def test_a_journal_that_names_a_file_elsewhere_is_not_believed(store, log):
    store.journal.put({"square 2": b'{"files":["../../etc/hostname"],"value":{"square":5}}'})
    assert perform(store, [Square(2, log)], Local(1)) == [{"square": 4}]


def test_progress_counts_what_is_done_already(store, log):
    perform(store, [Square(n, log) for n in range(2)], Local(1))
    told = []
    perform(store, [Square(n, log) for n in range(4)], Local(1), progress=lambda *now: told.append(now))
    assert told == [(2, 4, ""), (3, 4, "square"), (4, 4, "square")]


def test_what_was_finished_before_an_interrupt_is_kept(store, log):
    def impatient(finished, total, what):
        if finished == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(store, [Square(n, log) for n in range(5)], Local(1), progress=impatient)
    perform(store, [Square(n, log) for n in range(5)], Local(1))
    assert done(log) == dict.fromkeys(range(5), 1)


def test_several_processes_give_the_values_of_one(tmp_path, log):
    jobs = [Square(n, log, bundle="b" if n % 2 else "", filed=True) for n in range(12)]
    jobs += [Cube(n, log) for n in range(3)]
    found = []
    for workers in (1, 2):
        store = ModelStore(tmp_path / str(workers))
        with Local(workers) as made_by:
            found.append(perform(store, jobs, made_by))
        assert len(list((store.root / "models").iterdir())) == 12
    assert found[0] == found[1] == [{"square": job.number**2} for job in jobs]


# --- jobs that break


@pytest.mark.parametrize(
    ("breaks", "sentence"), [("value", "ValueError: no luck"), ("model", "no luck")], ids=["value", "model"]
)
def test_a_broken_job_raises_what_it_said(store, log, breaks, sentence):
    with pytest.raises(ModelError, match=f"^{sentence}$"):
        perform(store, [Square(1, log), Square(2, log, breaks=breaks)], Local(1))
    assert perform(store, [Square(1, log)], Local(1)) and done(log)[1] == 1


def test_a_tolerant_caller_is_told_why_and_the_failure_is_kept(store, log):
    jobs = [Square(1, log), Square(2, log, breaks="value"), Square(3, log)]
    for _ in range(2):
        found = perform(store, jobs, Local(1), tolerant=True)
        assert found == [{"square": 1}, {"failed": "ValueError: no luck", "error": "ValueError"}, {"square": 9}]
    assert done(log) == {1: 1, 2: 1, 3: 1}


def test_a_failure_is_no_result_for_who_insists_and_a_later_success_is_kept(store, log):
    perform(store, [Square(2, log, breaks="value")], Local(1), tolerant=True)
    for _ in range(2):
        assert perform(store, [Square(2, log)], Local(1)) == [{"square": 4}]
    assert perform(store, [Square(2, log)], Local(1), tolerant=True) == [{"square": 4}]
    assert done(log) == {2: 2}, "once in vain, once with success"


def test_one_broken_job_in_a_bundle_spoils_no_other(store, log):
    jobs = [Square(n, log, bundle="b", breaks="model" if n == 3 else "") for n in range(6)]
    found = perform(store, jobs, Local(1), tolerant=True)
    assert [v.get("square") for v in found] == [0, 1, 4, None, 16, 25] and found[3] == {
        "failed": "no luck",
        "error": "ModelError",
    }


@pytest.mark.parametrize(("breaks", "kind"), [("file", FileError), ("disk", OSError), ("package", ImportError)])
def test_the_machines_fault_is_never_the_jobs(store, log, breaks, kind):
    """A full disk or a missing package says nothing about the job, so it is raised and not kept."""
    jobs = [Square(n, log, bundle="b", breaks=breaks if n == 1 else "") for n in range(3)]
    with pytest.raises(kind):
        perform(store, jobs, Local(1), tolerant=True)
    assert "square 1" not in store.results(["square 1"])


def test_why_is_one_short_line():
    assert reason(UsageError("a\n b")) == "a b" and reason(KeyError("k")) == "KeyError: 'k'"
    assert len(reason(ValueError("x" * 999))) == 400


def test_a_unit_gives_one_result_per_job(tmp_path, log):
    unit = [Square(n, log, bundle="b", breaks="value" if n == 1 else "") for n in range(3)]
    assert [("failed" in made.value) for made in work(tmp_path, unit)] == [False, True, False]


# --- bundles


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["", "a", "b"])), max_size=200), st.integers(1, 9))
def test_bundles_hold_every_job_once_and_keep_all_workers_busy(drawn, workers):
    jobs = [(Cube if cube else Square)(n, bundle=bundle) for n, (cube, bundle) in enumerate(drawn)]
    units = bundled(jobs, workers)
    assert sorted(job.number for unit in units for job in unit) == list(range(len(jobs)))
    for unit in units:
        assert len({(type(job), job.bundle) for job in unit}) == 1 and 1 <= len(unit) <= MOST_TOGETHER
        assert unit[0].bundle or len(unit) == 1
        assert [job.number for job in unit] == sorted(job.number for job in unit)
    assert len(units) >= min(workers, len(jobs)), "a worker without work while another has several jobs"


def test_many_equal_jobs_are_shared_out_two_units_per_worker():
    assert [len(unit) for unit in bundled([Square(n, bundle="b") for n in range(24)], 2)] == [6, 6, 6, 6]
    assert len(bundled([Square(n, bundle="b") for n in range(1000)], 2)) == -(-1000 // MOST_TOGETHER)


# --- engines by name


def test_engines_by_name():
    assert engine("local", jobs=3).workers == 3
    with pytest.raises(UsageError, match="local or ray"):
        engine("rai")
    with pytest.raises(UsageError, match="--engine ray only"):
        engine("local", address="head:6379")


def test_without_ray_the_pip_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minutia\[ray\]'"):
        engine("ray")
