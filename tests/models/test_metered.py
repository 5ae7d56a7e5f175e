"""The meter: budgets, failures, journals and kills, with a model that misbehaves on purpose."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.errors import BudgetError, FileError, ModelError, ProtocolError, UsageError
from minutia.core.model import Model
from minutia.core.probe import ProbeSet, numbered
from minutia.models.metered import Metered
from minutia.models.replay import open_model
from minutia.models.toy import NgramModel, ToyClassifier
from minutia.storage.journal import SqliteJournal

TOY = ToyClassifier.fresh((2, 4, 3), 1)
PROBES = numbered(np.random.default_rng(0).normal(size=(20, 2)), {"channel": "array"})


class Wrapped:
    """A model that does something else to each call, numbered from 0, and remembers which ids it was asked."""

    def __init__(self, act=lambda call, probes, answer: answer(probes), model=TOY):
        self.spec, self.card, self.access = model.spec, model.card, model.access
        self.act, self.model, self.calls, self.asked = act, model, 0, []

    def ask(self, probes):
        call, self.calls = self.calls, self.calls + 1
        answers = self.act(call, probes, self.model.ask)
        self.asked += probes.ids
        return answers


class Memory(dict):
    """A journal in memory, which counts how often it was written."""

    puts = 0

    def get(self, keys):
        return {k: self[k] for k in keys if k in self}

    def put(self, entries):
        self.puts += 1
        self.update({k: v for k, v in entries.items() if k not in self})


def failing(when):
    def act(call, probes, answer):
        if when(call, probes):
            raise ConnectionError(f"call {call}\nsecond line")
        return answer(probes)

    return Wrapped(act)


def same(first, second):
    assert first.arrays().keys() == second.arrays().keys() and first.text == second.text
    for name, column in first.arrays().items():
        np.testing.assert_allclose(column, second.arrays()[name], rtol=1e-5, atol=1e-6, err_msg=name)


@given(st.integers(1, 20), st.integers(1, 25), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_meter_changes_no_answer(count, batch, journalled):
    model = Metered(TOY, batch=batch, journal=Memory() if journalled else None)
    same(model.ask(PROBES.take(range(count))), TOY.ask(PROBES.take(range(count))))
    assert (model.sent, model.cached, model.retried) == (count, 0, 0)


def test_it_is_the_same_model_without_what_asking_cannot_show():
    model = Metered(TOY)
    assert isinstance(model, Model) and (model.spec, model.card) == (TOY.spec, TOY.card)
    assert model.access == Access.LABELS | Access.TOP_K | Access.SCORES | Access.LOGITS


@pytest.mark.parametrize("journalled", [False, True])
def test_only_what_is_allowed_is_shown(journalled, tmp_path):
    journal, path = Memory() if journalled else None, tmp_path / "t.jsonl"
    for _ in range(2):
        model = Metered(TOY, only=Access.LABELS, journal=journal, transcript=path)
        answers = model.ask(PROBES)
        assert model.access == Access.LABELS and answers.scores is None and answers.logits is None
        assert answers.labels.tolist() == TOY.ask(PROBES).labels.tolist()
    assert all(set(json.loads(line)["response"]) == {"label"} for line in path.read_text().splitlines())


def test_every_other_call_fails_and_nothing_is_lost():
    model = Metered(failing(lambda call, probes: call % 2 == 0), batch=4, wait=0.001)
    same(model.ask(PROBES), TOY.ask(PROBES))
    assert (model.sent, model.retried) == (40, 20)


def test_half_of_the_batches_fail_for_ever(tmp_path):
    def broken(call, probes):
        return probes.ids[0] in PROBES.ids[::8]

    journal, inner = Memory(), failing(broken)
    model = Metered(inner, batch=4, attempts=3, wait=0, journal=journal)
    answers = model.ask(PROBES)
    lost = np.isin(np.arange(20) // 4, [0, 2, 4])
    np.testing.assert_array_equal(answers.status, np.where(lost, Status.FAILED, Status.OK))
    same(answers.take(np.flatnonzero(~lost)), TOY.ask(PROBES.take(np.flatnonzero(~lost))))
    assert np.isnan(answers.scores[lost]).all() and (answers.labels[lost] == -1).all()
    assert (model.sent, model.retried) == (8 + 36, 24)
    assert len(journal) == 8, "failures are never journalled"
    healed = Metered(Wrapped(), batch=4, journal=journal)
    same(healed.ask(PROBES), TOY.ask(PROBES))
    assert (healed.sent, healed.cached) == (12, 8)


def test_a_model_that_never_answers_is_one_clear_sentence():
    inner = failing(lambda call, probes: True)
    with pytest.raises(ModelError, match=r"got an error for every batch: call 0; check") as caught:
        Metered(inner, batch=8, attempts=1, wait=0).ask(PROBES)
    assert "\n" not in str(caught.value) and inner.calls == 3


def test_long_errors_of_others_are_cut():
    def act(call, probes, answer):
        raise RuntimeError("x" * 10_000)

    with pytest.raises(ModelError) as caught:
        Metered(Wrapped(act), wait=0).ask(PROBES)
    assert len(str(caught.value)) < 500


def test_one_lost_probe_after_others_arrived_is_a_failed_row():
    """Looks ask one probe at a time: a probe that the server cannot digest must not end the whole observation."""
    model = Metered(failing(lambda call, probes: "p005" in probes.ids), wait=0)
    assert model.ask(PROBES.take(range(5))).status.tolist() == [Status.OK] * 5
    assert model.ask(PROBES.take([5])).status.tolist() == [Status.FAILED]


@pytest.mark.parametrize("error", [ModelError, UsageError, BudgetError, ProtocolError, KeyboardInterrupt])
def test_errors_on_purpose_are_not_retried(error):
    def act(call, probes, answer):
        raise error("no")

    inner = Wrapped(act)
    with pytest.raises(error, match="no"):
        Metered(inner).ask(PROBES)
    assert inner.calls == 1


def test_a_wrong_input_size_is_one_clear_sentence():
    with pytest.raises(ModelError, match=r"^expected inputs of 2 numbers each for toy:.*, got an array of shape"):
        Metered(TOY).ask(numbered(np.zeros((3, 7)), {}))


@pytest.mark.parametrize("budget", [0, 1, 7, 8, 19])
def test_the_budget_stops_before_it_is_exceeded(budget):
    inner, journal = Wrapped(), Memory()
    model = Metered(inner, max_queries=budget, batch=8, journal=journal)
    with pytest.raises(BudgetError, match=f"expected at most {budget} queries"):
        model.ask(PROBES)
    assert model.sent == len(inner.asked) == len(journal) == budget // 8 * 8
    done = Metered(Wrapped(), max_queries=20 - model.sent, batch=8, journal=journal)
    same(done.ask(PROBES), TOY.ask(PROBES))


def test_an_exact_budget_is_enough():
    assert len(Metered(TOY, max_queries=20, batch=8).ask(PROBES)) == 20


def test_retries_are_paid_for():
    model = Metered(failing(lambda call, probes: call == 0), max_queries=39, batch=20, wait=0)
    with pytest.raises(BudgetError):
        model.ask(PROBES)
    assert model.sent == 20


def test_the_journal_resumes(tmp_path):
    for run in range(3):
        with SqliteJournal(tmp_path / "journal") as journal:
            model = Metered(TOY, journal=journal, batch=8, transcript=tmp_path / "t.jsonl")
            same(model.ask(PROBES), TOY.ask(PROBES))
            assert (model.sent, model.cached) == ((20, 0) if run == 0 else (0, 20))
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 20, "a resumed transcript repeats nothing"


def test_every_batch_is_journalled_before_the_next_is_asked():
    journal, sizes = Memory(), []

    def act(call, probes, answer):
        sizes.append(len(journal))
        return answer(probes)

    Metered(Wrapped(act), journal=journal, batch=6).ask(PROBES)
    assert sizes == [0, 6, 12, 18] and journal.puts == 4


def test_keys_are_questions_not_names():
    journal = Memory()
    Metered(TOY, journal=journal).ask(PROBES)
    renamed = ProbeSet(tuple(f"q{i}" for i in range(20)), PROBES.array, PROBES.protocol)
    assert_sent(journal, renamed, 0)
    assert_sent(journal, ProbeSet(PROBES.ids, PROBES.array, PROBES.protocol, repeat=1), 20)
    assert_sent(journal, ProbeSet(PROBES.ids, PROBES.array, {"channel": "jpeg"}), 20)
    assert_sent(journal, PROBES, 20, ToyClassifier.fresh((2, 4, 3), 2))


def assert_sent(journal, probes, count, model=TOY):
    meter = Metered(model, journal=journal)
    same(meter.ask(probes), model.ask(probes))
    assert meter.sent == count


def test_samples_of_one_question_stay_different_samples():
    """One prompt under many ids is a sample of the model's answers; a journal must not repeat the first of them."""
    model, journal = NgramModel("abcd" * 3 + "acbd" * 3 + "dcba", order=0), Memory()
    probes = ProbeSet(tuple("stuvwxyz"), ("a",) * 8, {"sampling": {"max_tokens": 6}})
    direct = model.ask(probes)
    assert len(set(direct.text)) > 1
    first = Metered(model, journal=journal)
    looked = [first.ask(probes.take(rows)) for rows in ([0, 1, 2], [3], [4, 5, 6, 7])]
    assert sum((a.text for a in looked), ()) == direct.text
    again = Metered(model, journal=journal)
    assert again.ask(probes).text == direct.text and again.ask(probes).text == direct.text
    assert (first.sent, again.sent) == (8, 0)


def test_invalid_answers_are_answers(tmp_path):
    broken, journal = PROBES.array.copy(), Memory()
    broken[3] = np.nan
    probes, path = ProbeSet(PROBES.ids, broken, PROBES.protocol), tmp_path / "t.jsonl"
    digests = set()
    for _ in range(2):
        answers = Metered(TOY, journal=journal, transcript=path, batch=2).ask(probes)
        digests.add(Observation(TOY.card, probes.ids, answers, probes.digest).digest)
        assert answers.status[3] == Status.INVALID and answers.labels[3] == -1
        same(answers, TOY.ask(probes))
    replayed = open_model(str(path)).ask(probes)
    digests.add(Observation(TOY.card, probes.ids, replayed, probes.digest).digest)
    assert len(journal) == 20 and len(digests) == 1


def test_a_transcript_is_the_model_that_was_asked(tmp_path):
    path = tmp_path / "t.jsonl"
    Metered(TOY.rebuilt({"b1": np.ones(3)}), transcript=path, batch=6).ask(PROBES)
    replayed, rebuilt = open_model(str(path)), TOY.rebuilt({"b1": np.ones(3)})
    same(replayed.ask(PROBES), rebuilt.ask(PROBES))
    assert (replayed.card.id, replayed.card.root) == (rebuilt.card.id, TOY.card.root)
    assert json.loads(path.read_text().splitlines()[0])["collected"].endswith("+00:00")


def test_texts_of_a_hostile_api_are_the_same_live_resumed_and_replayed(tmp_path):
    def act(call, probes, answer):
        return Answers(np.zeros(2, np.uint8), np.full(2, -1), text=("\ud800\n\0\u2028", "fine"))

    probes, journal, path = ProbeSet(("a", "b"), ("x", "y")), Memory(), tmp_path / "t.jsonl"
    inner = Wrapped(act, NgramModel("abc" * 9))
    live, resumed = (Metered(inner, journal=journal, transcript=path).ask(probes) for _ in range(2))
    assert live.text == resumed.text == open_model(str(path)).ask(probes).text == ("\ufffd\n\0\u2028", "fine")


def test_rows_that_the_model_itself_gives_up_are_asked_again_next_time():
    def act(call, probes, answer):
        return Answers.joined([answer(probes.take(range(len(probes) - 1))), Answers.without(1, Status.FAILED)])

    journal = Memory()
    answers = Metered(Wrapped(act), batch=10, journal=journal).ask(PROBES)
    assert np.flatnonzero(answers.status == Status.FAILED).tolist() == [9, 19] and len(journal) == 18


@pytest.mark.parametrize("count", [0, 3, 5])
def test_a_wrong_number_of_answers_is_refused(count):
    inner = Wrapped(lambda call, probes, answer: Answers.from_labels(np.zeros(count, int)))
    with pytest.raises(ModelError, match=f"expected 4 answers from .*, got {count}"):
        Metered(inner, batch=4).ask(PROBES)
    assert inner.calls == 1


@pytest.mark.parametrize("entry", [b"", b"{", b"[]", b"\xff", b"3", b'{"response": null}', b"[" * 100_000])
def test_a_foreign_journal_is_refused(entry):
    journal = Memory()
    Metered(TOY, journal=journal).ask(PROBES)
    journal.update(dict.fromkeys(journal, entry))
    with pytest.raises(FileError, match="expected answers in the journal"):
        Metered(TOY, journal=journal).ask(PROBES)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"batch": 0}, {"max_queries": -1}, {"wait": -1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="expected positive"):
        Metered(TOY, **wrong)


def test_retries_write_nothing_to_the_terminal():
    code = (
        "import numpy as np, minutia.models.metered as m, minutia.models.toy as t\n"
        "from minutia.core.probe import numbered\n"
        "model = t.ToyClassifier.fresh((2, 3))\n"
        "class Broken(t.ToyClassifier):\n"
        "    calls = 0\n"
        "    def ask(self, probes):\n"
        "        self.calls += 1\n"
        "        return super().ask(probes) if self.calls > 1 else 1 / 0\n"
        "model.__class__ = Broken\n"
        "assert m.Metered(model, wait=0).ask(numbered(np.zeros((2, 2)), {})).status.tolist() == [0, 0]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CHILD = """
import os, signal, sys
import numpy as np
from minutia.core.probe import numbered
from minutia.models.metered import Metered
from minutia.models.toy import ToyClassifier
from minutia.storage.journal import SqliteJournal

folder, fatal = sys.argv[1], int(sys.argv[2])

class Logged(ToyClassifier):
    calls = 0
    def ask(self, probes):
        self.calls += 1
        if self.calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(f"{folder}/asked", "a") as log:
            log.write("".join(f"{i}\\n" for i in probes.ids))
        return super().ask(probes)

model = Logged(dict(ToyClassifier.fresh((2, 4, 3), 1).tensors()))
probes = numbered(np.random.default_rng(0).normal(size=(20, 2)), {"channel": "array"})
journal = SqliteJournal(f"{folder}/journal")
meter = Metered(model, journal=journal, batch=3, transcript=f"{folder}/t.jsonl")
print(meter.ask(probes).labels.tolist(), meter.sent, meter.cached)
"""


def test_a_kill_in_the_middle_costs_nothing_that_was_answered(tmp_path):
    killed = subprocess.run([sys.executable, "-c", CHILD, tmp_path, "4"], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len((tmp_path / "asked").read_text().split()) == 9
    resumed = subprocess.run([sys.executable, "-c", CHILD, tmp_path, "99"], capture_output=True, text=True, check=True)
    assert resumed.stdout.strip() == f"{TOY.ask(PROBES).labels.tolist()} 11 9"
    asked = (tmp_path / "asked").read_text().split()
    assert sorted(asked) == list(PROBES.ids), "every probe was asked exactly once over both runs"
    assert open_model(f"{tmp_path}/t.jsonl").ask(PROBES).labels.tolist() == TOY.ask(PROBES).labels.tolist()
