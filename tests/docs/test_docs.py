"""The documentation is true: pages are current, links lead somewhere, examples run."""

import doctest
import importlib.util
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import minutia
from minutia import Material, catalog
from minutia.cli import run
from minutia.core import errors
from minutia.models.toy import ToyClassifier

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
PAGES += sorted((ROOT / "changelog.d").glob("*.md"))
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELLS = ("console", "sh", "shell", "bash")
CUT = {"|", ">", ">>", "2>", "&&", "||", ";", "&"}


def named(path):
    return str(path.relative_to(ROOT))


def blocks(path, *languages):
    """Contents of the code blocks in these languages, with what follows the language's name."""
    found = [(m[2], m[3], m[4]) for m in FENCE.finditer(path.read_text(encoding="utf-8"))]
    return [(rest, body) for language, rest, body in found if language in languages]


def prose(path):
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def shell_lines(path):
    """Command lines without prompt; a backslash continues a line."""
    for _, body in blocks(path, *SHELLS):
        for line in body.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


@pytest.fixture(scope="session")
def generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def root(generator):
    return dict(generator.commands())["minutia",]


# Pages


def test_generated_pages_are_up_to_date(generator):
    for name, text in generator.pages().items():
        path = DOCS / "reference" / name
        assert path.read_text(encoding="utf-8") == text, f"{name} is out of date: run make docs"


def test_the_check_notices_a_changed_page(generator, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generator, "REFERENCE", tmp_path)
    assert generator.main(["--check"]) == 1
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "flags.md").write_text("changed")
    assert generator.main(["--check"]) == 1
    assert "flags.md is out of date" in capsys.readouterr().err


def test_every_command_has_help_and_stands_in_the_reference(generator):
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    for path, command in generator.commands():
        assert command.help, f"{' '.join(path)} has no help"
        assert f"\n## {' '.join(path)}\n" in text
        for option in command.params:
            assert getattr(option, "help", ""), f"{' '.join(path)} {option.name} has no help"


def test_every_page_is_in_the_navigation_once():
    def pages(item):
        if isinstance(item, str):
            return [item]
        return [p for i in (item.values() if isinstance(item, dict) else item) for p in pages(i)]

    listed = pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    there = [str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] != "design"]
    assert sorted(listed) == sorted(there), "zensical.toml lists other pages than docs/ holds"


def test_the_python_reference_names_everything_public():
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    missing = [name for name in minutia.__all__ if not re.search(rf"`{name}\b", text)]
    assert not missing


def test_the_python_reference_names_every_error():
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    there = [n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, minutia.MinutiaError)]
    assert not [name for name in there if f"`{name}`" not in text]


def test_the_readme_names_every_built_in_plugin(generator):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [n for group in catalog.GROUPS for n, _ in generator._built_in(group) if f"`{n}`" not in text]
    assert not missing


# Links


def anchors(path):
    """Anchors of a page's headings, spelled as the site and code hosts spell them."""
    heads = re.findall(r"^#+ +(.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()).strip().replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.is_file(), f"{named(page)} links to {target}, which is not there"
        assert DOCS not in page.parents or DOCS in path.parents, f"{target} leads out of the site"
        assert not anchor or anchor in anchors(path), f"{named(page)} links to {target}, which has no such heading"


# Examples


def leaf(root, words):
    """The command that words call, and its own words."""
    command, rest = root, list(words)
    while getattr(command, "commands", None):
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        while rest and rest[0].startswith("-"):
            assert rest[0] in known, f"no option {rest[0]} in {' '.join(words)}"
            rest.pop(0)
        if not rest:
            break
        assert rest[0] in command.commands, f"no command {rest[0]!r} in {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_shell_examples_use_existing_commands_and_options(page, root):
    for line in shell_lines(page):
        if not line.startswith("minutia"):
            continue
        words = shlex.split(line, comments=True)[1:]
        words = words[: next((i for i, w in enumerate(words) if w in CUT), len(words))]
        command, rest = leaf(root, words)
        if getattr(command, "commands", None):
            continue
        values = command.make_context("minutia", rest).params
        if "method" in values:
            catalog.method(values["method"])


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_the_text_exist(page, root):
    for span in re.findall(r"`minutia ([^`…]+)`", prose(page)):
        command, rest = leaf(root, shlex.split(span))
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        assert not {w for w in rest if w.startswith("-")} - known, span


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "json")], ids=named)
def test_json_examples_are_json(page):
    for _, body in blocks(page, "json"):
        lines = body.splitlines()
        for text in lines if all(line.startswith('{"') for line in lines) else [body]:
            json.loads(text)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
def test_python_examples_run(page, folder):
    """Blocks with a title are files; the others run one after the other."""
    names = {"__name__": "example"}
    for rest, body in blocks(page, "python"):
        title = re.search(r'title="([^"]+)"', rest)
        if title:
            compile(body, title[1], "exec")
            (folder / title[1]).write_text(body)
        else:
            exec(compile(body, named(page), "exec"), names)
    for module in [m for m in sys.modules.values() if str(folder) in str(getattr(m, "__file__", ""))]:
        assert doctest.testmod(module).failed == 0


def test_a_transcript_written_as_described_can_be_judged(folder, capsys):
    names = {}
    for _, body in blocks(DOCS / "how-to" / "verify-from-a-transcript.md", "python"):
        exec(body, names)
    assert run(["verify", "mine.safetensors", "replay:answers.jsonl", "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["answered"] == verdict["queries"] == 40
    assert verdict["model"]["id"] == "the app of 3 May"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a fingerprint called mine.safetensors; modules imported from it are forgotten."""
    inputs = np.random.default_rng(0).random((50, 16), dtype=np.float32)
    owner = ToyClassifier.fresh((16, 12, 10), seed=1)
    fp = catalog.method("noise_agreement(probes=40)").extract(owner, Material(inputs, np.zeros(50, int)))
    minutia.save_fingerprint(fp, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# Whole tutorials


@pytest.mark.slow
def test_the_first_verdict_as_a_reader_does_it(folder, capsys):
    page = DOCS / "get-started" / "first-verdict.md"
    ((_, script),) = blocks(page, "python")
    exec(compile(script, "train.py", "exec"), {"__name__": "__main__"})
    codes = [run(shlex.split(line)[1:]) for line in shell_lines(page)]
    assert codes == [0, 0, 0, 3, 0, 1]
    out = capsys.readouterr().out
    assert "MATCH" in out
    assert "INCONCLUSIVE" in out and "NO MATCH" in out


@pytest.mark.slow
def test_the_torch_example_opens_and_trains(folder):
    pytest.importorskip("torch")
    rest, body = blocks(DOCS / "how-to" / "enrol-a-torch-model.md", "python")[0]
    assert 'title="mynet.py"' in rest
    (folder / "mynet.py").write_text(body)
    data = minutia.load_dataset("sklearn:digits?rows=0:600")
    made = catalog.model("torch:mynet:build?train=mynet:train").trained(
        data.inputs, data.labels, minutia.Plan(reset="everything"), seed=1
    )
    answers = made.ask(minutia.ProbeSet(tuple(map(str, range(len(data.test_inputs)))), data.test_inputs))
    assert np.mean(answers.labels == data.test_labels) > 0.8
