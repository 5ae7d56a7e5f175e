"""The demo on real images: truth is known, so it can be wrong; run twice, it is the same."""

import json

import pytest

from minutia.cli import run
from minutia.core.verdict import EXIT_CODES


@pytest.mark.slow
def test_the_demo_convicts_copies_and_no_innocent(tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    assert run(["demo", "--dir", str(tmp_path / "demo"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    verdicts = found["verdicts"]
    assert {v["outcome"] for v in verdicts} <= set(EXIT_CODES)
    accused = [v for v in verdicts if v["truth"] == "unrelated" and v["outcome"] == "match"]
    assert not accused, [(v["suspect"], v["kind"], v["p_value"]) for v in accused]
    near = [v for v in verdicts if v["kind"] in ("fine-tune-last", "quantise", "noise")]
    assert near and sum(v["outcome"] == "match" for v in near) >= 0.75 * len(near)
    assert not [v for v in verdicts if v["truth"] == "derived" and v["outcome"] == "no-match"]
    page = (tmp_path / "demo" / "seed-0" / "report.html").read_text()
    assert (
        found["report"].endswith("report.html")
        and "<svg" in page
        and "http://" not in page.replace("http://www.w3.org", "")
    )

    assert run(["demo", "--dir", str(tmp_path / "demo"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [v["p_value"] for v in again["verdicts"]] == [v["p_value"] for v in verdicts]
    assert [v["observation"] for v in again["verdicts"]] == [v["observation"] for v in verdicts]
