"""What all tests share: one thread, one deterministic profile for hypothesis, toy models in a folder."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Which stores are one's own is noted in a folder of the user's; tests have one of their own.
os.environ["MINUTIA_DATA_DIR"] = tempfile.mkdtemp(prefix="minutia-tests-")

import pytest
from hypothesis import settings

atexit.register(shutil.rmtree, os.environ["MINUTIA_DATA_DIR"], ignore_errors=True)
settings.register_profile("minutia", deadline=None, max_examples=50, print_blob=True)
settings.load_profile("minutia")


def pytest_addoption(parser):
    parser.addoption("--update-goldens", action="store_true", help="write the golden files anew")


@pytest.fixture
def update_goldens(request):
    return request.config.getoption("--update-goldens")
