"""Tables on disk: believed only if their digest is that of their content."""

import json

import pytest

from minutia.core.errors import FileError
from minutia.storage.tables import SCHEMA, digest, load_table

BODY = {"schema": SCHEMA, "name": "digits", "seeds": [0], "facts": {}, "methods": [], "claims": [], "apart": []}
TABLE = {**BODY, "date": "2030-01-31", "digest": digest(BODY)}


def written(path, found):
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


def test_a_table_reads_back(tmp_path):
    assert load_table(written(tmp_path / "table.json", TABLE)) == TABLE


def test_a_printed_table_with_its_comparison_is_the_same_table(tmp_path):
    assert load_table(written(tmp_path / "table.json", {**TABLE, "moved": {"moved": []}})) == TABLE


def test_dates_and_seconds_are_no_part_of_the_digest():
    timed = {**BODY, "methods": [{"rate": 0.5, "verify_seconds": 1.0}]}
    slower = {**BODY, "methods": [{"rate": 0.5, "verify_seconds": 9.0}], "date": "later"}
    assert digest(timed) == digest(slower)
    assert digest(timed) != digest({**BODY, "methods": [{"rate": 0.6}]})


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({**TABLE, "schema": "minutia.table/0"}, "schema"),
        ({"schema": 3}, "schema"),
        ({**TABLE, "name": "other"}, "altered"),
        ({k: v for k, v in TABLE.items() if k != "digest"}, "digest"),
        ({k: v for k, v in TABLE.items() if k != "methods"}, "methods"),
        ({**TABLE, "seeds": "0"}, "seeds"),
        ([TABLE], "JSON object"),
        (json.dumps(TABLE)[:-9], "damaged"),
        ('{"schema": NaN}', "damaged"),
        ("[" * 100_000, "damaged"),
        ("", "damaged"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(tmp_path, found, says):
    with pytest.raises(FileError, match=says) as caught:
        load_table(written(tmp_path / "table.json", found))
    assert str(caught.value).startswith("expected ") and "\n" not in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"nothing at .*absent\.json"):
        load_table(tmp_path / "absent.json")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "table.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="damaged"):
        load_table(tmp_path / "table.json")
