"""The JSON document: complete, ordered, without NaN and without control characters."""

import json as stdlib

import numpy as np
import pytest

from minutia.report import json
from minutia.report.rows import Row


def test_what_is_not_a_number_becomes_null():
    found = {"b": float("nan"), "a": [np.float32("inf"), np.int64(3), (1.5,)], "c": np.array([1, 2])}
    assert stdlib.loads(json.dumps(found)) == {"b": None, "a": [None, 3, [1.5]], "c": [1, 2]}
    assert list(stdlib.loads(json.dumps(found))) == ["b", "a", "c"]


def test_what_is_no_plain_data_is_refused():
    with pytest.raises(TypeError):
        json.dumps({"model": object()})


def test_document_holds_every_verdict_with_its_truth(demo):
    rows = demo[0]
    found = stdlib.loads(json.dumps(json.document(rows, "report.html")))
    assert (found["schema"], found["report"], len(found["verdicts"])) == ("minutia.demo/1", "report.html", len(rows))
    assert list(found["verdicts"][0])[:3] == ["suspect", "truth", "kind"]
    for row, verdict in zip(rows, found["verdicts"], strict=True):
        assert {"suspect": row.suspect, "truth": row.truth, "kind": row.kind}.items() <= verdict.items()
        assert verdict["outcome"] == row.verdict.outcome
        assert verdict.keys() >= row.verdict.plain().keys()
    assert found["summary"]["weight_derived_matched"]["of"] == 18
    assert found["summary"]["median_queries_to_match"] == 6


def test_names_cannot_steer_a_terminal(one):
    hostile = "\x1b]0;pwned\x07 \x9b31m \u202e \udc80"
    text = json.dumps(json.document([Row(hostile, None, "", one())], "r"))
    assert all(" " <= c <= "~" or c == "\n" for c in text)
    assert stdlib.loads(text)["verdicts"][0]["suspect"] == hostile
