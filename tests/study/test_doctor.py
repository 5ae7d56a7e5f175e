"""The doctor runs the main job, and a broken part is a finding."""

from minutia.study import doctor


def test_a_sound_installation_is_fine():
    found = doctor.examine()
    assert {f.state for f in found} <= {"fine", "absent"}, found
    checks = {f.check for f in found}
    assert {"python", "numpy", "fingerprint file round trip", "verdicts on toy models"} <= checks
    assert any("ipguard" in f.detail for f in found)


def test_what_raises_is_broken_and_says_why():
    def work():
        raise ValueError("the digest changed")

    found = doctor._tried("a check", work)
    assert (found.state, found.detail) == ("broken", "ValueError: the digest changed")
    assert doctor._package("a-package-that-nobody-wrote", None).state == "broken"
    missing = doctor._package("a-package-that-nobody-wrote", "onnx")
    assert (missing.state, missing.detail) == ("absent", "optional: pip install 'minutia[onnx]'")
