"""What all kinds of models share: the spelling of specs, and bounded reading."""

import pytest

from minutia.core.errors import FileError, UsageError
from minutia.models import one_line, read_bounded, split_spec, whole_number


def test_values_are_taken_literally():
    assert split_spec("ngram?text=/a b/c%20+d.txt", ("text",)) == ("ngram", {"text": "/a b/c%20+d.txt"})
    assert split_spec("a.jsonl?model=org/name@v1=x", ("model",))[1] == {"model": "org/name@v1=x"}


@pytest.mark.parametrize("rest", ["m?sede=1", "m?seed", "m?seed=1&seed=1", "m?seed=1&", "m?=1"])
def test_unknown_options_name_the_allowed_ones(rest):
    with pytest.raises(UsageError, match=r"each once \(seed, size\)"):
        split_spec(rest, ("seed", "size"))


@pytest.mark.parametrize("text", ["-1", "1.5", "", "x", "0", "9" * 30])
def test_whole_numbers(text):
    with pytest.raises(UsageError, match="whole number of at least 1 for threads"):
        whole_number({"threads": text}, "threads", 1, least=1)


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, "a file", 5) == b"12345"
    with pytest.raises(FileError, match="expected a file of at most"):
        read_bounded(path, "a file", 4)
    with pytest.raises(FileError, match="directory"):
        read_bounded(tmp_path, "a file", 4)


def test_errors_of_others_become_one_bounded_line():
    assert one_line(ValueError("\n a\nb")) == "a" and len(one_line(ValueError("x" * 999))) == 200
