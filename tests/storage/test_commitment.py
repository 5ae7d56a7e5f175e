"""Commitments bind to everything that was drawn, and the ledger tells every question before it is asked."""

import json
import multiprocessing
import stat
from dataclasses import replace

import numpy as np
import pytest

from minutia import api
from minutia.checks import marking_bench
from minutia.core.errors import FileError, UsageError
from minutia.core.fingerprint import Null
from minutia.core.probe import numbered
from minutia.methods.classifiers.noise_agreement import NoiseAgreement
from minutia.methods.classifiers.trigger_set import TriggerSet
from minutia.storage.commitment import commitment, load_commitment, opening, save_commitment
from minutia.storage.files import load_fingerprint, save_fingerprint
from minutia.storage.ledger import Ledger

SECRET = 2**200 + 5


@pytest.fixture(scope="module")
def fp():
    bench = marking_bench()
    return TriggerSet(triggers=40).embed(bench.owner, bench.material, seed=SECRET)[1]


# --- commitments


def test_the_fingerprint_opens_its_commitment_after_a_trip_through_files(fp, tmp_path):
    found = save_commitment(fp, tmp_path / "public.json")
    save_fingerprint(fp, tmp_path / "secret")
    assert load_commitment(tmp_path / "public.json") == found
    assert api.opens(found, load_fingerprint(tmp_path / "secret")) == api.Opened(committed=True, redrawn=True)


@pytest.mark.parametrize("what", ["labels", "key", "drawing"])
def test_an_array_that_was_changed_after_the_commitment_is_noticed(fp, what):
    array = fp.arrays[what].copy()
    array[0] += 1
    other = replace(fp, arrays={**fp.arrays, what: array})
    assert api.opens(commitment(fp), other) == api.Opened(committed=False, redrawn=False)


@pytest.mark.parametrize(
    "drawing", [[0, 0, 1, 256], [5, 1, 1, 0], [np.nan, 0, 1, 0], [5, 0, np.inf, 0], [5.5, 0, 1, 0]]
)
def test_a_draw_that_cannot_be_is_none_of_the_keys(fp, drawing):
    assert not TriggerSet(triggers=40).redrawn(replace(fp, arrays={**fp.arrays, "drawing": np.array(drawing)}))
    assert not TriggerSet(triggers=40).redrawn(replace(fp, arrays={}))


@pytest.mark.parametrize(
    "other",
    [{"seed": SECRET + 1}, {"method": TriggerSet(triggers=40, epochs=6).key}],
    ids=["seed", "method"],
)
def test_another_seed_or_method_is_noticed(fp, other):
    assert commitment(replace(fp, **other)) != commitment(fp)


def test_another_model_is_noticed(fp):
    assert commitment(replace(fp, owner=replace(fp.owner, id="sha256:" + 64 * "0"))) != commitment(fp)


def test_hand_picked_labels_can_be_committed_to_but_are_not_those_of_the_key(fp):
    """The hole that a commitment alone leaves: labels that the accused model gives by nature."""
    picked = replace(fp, arrays={**fp.arrays, "labels": np.zeros_like(fp.arrays["labels"])})
    assert api.opens(commitment(picked), picked) == api.Opened(committed=True, redrawn=False)


def test_the_public_file_holds_one_hash_and_nothing_else(fp, tmp_path):
    found = save_commitment(fp, tmp_path / "public.json")
    text = (tmp_path / "public.json").read_text()
    assert json.loads(text) == {"schema": "minutia.commitment/1", "commitment": found}
    assert not any(str(secret) in text for secret in (SECRET, opening(fp)["salt"], fp.probes.digest, fp.digest))


def test_a_seed_that_can_be_guessed_is_refused(fp):
    with pytest.raises(UsageError, match=r"secrets\.randbits"):
        commitment(replace(fp, seed=2**40))


def test_only_marks_are_committed_to():
    bench = marking_bench()
    other = NoiseAgreement(probes=10).extract(bench.owner, bench.material, seed=SECRET)
    with pytest.raises(UsageError, match="minutia embed"):
        api.opens("sha256:0", other)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "[" * 5000, " " * 70000),
        '{"schema": "minutia.commitment/2", "commitment": "x"}',
        '{"schema": "minutia.commitment/1", "commitment": 7}',
        '{"schema": "minutia.commitment/1"}',
    ],
)
def test_what_is_no_commitment_is_refused(tmp_path, content):
    (tmp_path / "public.json").write_text(content)
    with pytest.raises(FileError, match="expected a commitment"):
        load_commitment(tmp_path / "public.json")


def test_a_commitment_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        load_commitment(tmp_path / "public.json")


# --- the ledger


def test_every_question_is_noted_before_it_is_asked(fp, tmp_path):
    ledger, suspect = Ledger(tmp_path / "ledger", fp), marking_bench().innocents[0]

    class Watched:
        spec, card, access = suspect.spec, suspect.card, suspect.access

        def ask(self, probes):
            noted.append((tmp_path / "ledger").read_text().count("p000"))
            return suspect.ask(probes)

    noted: list[int] = []
    TriggerSet(triggers=40).verify(fp, ledger.noting(Watched()), Null.none())
    assert noted[0] == 1
    entries = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [key for entry in entries for key in entry["keys"]] == list(fp.probes.ids)
    assert {(e["suspect"], e["fingerprint"], e["schema"]) for e in entries} == {
        (suspect.card.id, fp.digest, "minutia.ledger/1")
    }
    assert stat.S_IMODE((tmp_path / "ledger").stat().st_mode) == 0o600


def test_keys_asked_of_another_suspect_are_spent(fp, tmp_path):
    ledger, (one, two, *_) = Ledger(tmp_path / "ledger", fp), marking_bench().innocents
    assert ledger.spent(one.card) == {}
    ledger.note(fp.probes.take(range(3)), one)
    assert ledger.spent(one.card) == {}
    assert ledger.spent(two.card) == {key: {one.card.id} for key in ("p000", "p001", "p002")}
    assert Ledger(tmp_path / "ledger", replace(fp, seed=SECRET + 1)).spent(two.card) == {}


def test_the_owners_own_model_and_other_questions_are_not_noted(fp, tmp_path):
    bench = marking_bench()
    ledger = Ledger(tmp_path / "ledger", fp)
    marked = TriggerSet(triggers=40).embed(bench.owner, bench.material, seed=SECRET)[0]
    assert ledger.noting(marked) is marked
    ledger.noting(bench.innocents[0]).ask(numbered(bench.material.inputs[:4], {"channel": "array"}))
    assert not (tmp_path / "ledger").exists()


def test_a_line_that_was_cut_off_spoils_no_other(fp, tmp_path):
    path, (one, two, *_) = tmp_path / "ledger", marking_bench().innocents
    ledger = Ledger(path, fp)
    ledger.note(fp.probes.take([0]), one)
    path.write_bytes(path.read_bytes() + b'{"fingerprint":"sha256:12')
    ledger.note(fp.probes.take([1]), one)
    assert set(ledger.spent(two.card)) == {"p000", "p001"}
    assert path.read_bytes().count(b"\n") == 3


def note_many(path, fp, rows):
    for row in rows:
        Ledger(path, fp).note(fp.probes.take([row]), marking_bench().innocents[0])


def test_two_processes_note_at_a_time_without_mixing_lines(fp, tmp_path):
    path, fork = tmp_path / "ledger", multiprocessing.get_context("fork")
    workers = [fork.Process(target=note_many, args=(path, fp, range(start, 40, 2))) for start in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(key for entry in entries for key in entry["keys"]) == list(fp.probes.ids)


def test_without_a_ledger_nothing_is_asked(fp, tmp_path):
    asked: list[int] = []
    suspect = marking_bench().innocents[0]

    class Watched:
        spec, card, access = suspect.spec, suspect.card, suspect.access

        def ask(self, probes):
            asked.append(len(probes))
            return suspect.ask(probes)

    with pytest.raises(FileError, match="nothing was asked"):
        Ledger(tmp_path / "missing" / "ledger", fp).noting(Watched()).ask(fp.probes)
    assert asked == []
