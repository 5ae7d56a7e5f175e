"""Images, tables and texts: which method serves which, on real models of each."""

from dataclasses import replace

import numpy as np
import pytest

from minutia import api, catalog
from minutia.core.answers import Observation
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Null
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.methods.classifiers.ipguard import IPGuard
from minutia.methods.classifiers.natural_errors import NaturalErrors
from minutia.methods.classifiers.noise_agreement import NoiseAgreement
from minutia.models.toy import ToyClassifier
from minutia.storage.data import load_dataset

KINDS = {"sklearn:breast_cancer": "tabular_mlp", "sklearn:wine": "wine_mlp", "text:topics": "topics_net"}


class Scene:
    """An owner, spent and innocent models of the same recipe, a fine-tuned copy."""

    def __init__(self, spec):
        self.spec, self.data = spec, load_dataset(spec)
        self.owner = self.model(1)
        self.innocents = [self.model(200 + i) for i in range(20)]
        self.copy = self.owner.trained(
            self.data.test_inputs, self.data.test_labels, Plan(epochs=2, learning_rate=5e-4), 5
        )
        data = self.data
        self.material = Material(
            data.inputs,
            data.labels,
            unrelated=[self.model(100 + i) for i in range(10)],
            bounds=data.bounds,
            levels=data.levels,
            content=data.content,
            held_out=(data.test_inputs, data.test_labels),
        )

    def model(self, seed):
        blank = catalog.model(f"torch:minutia.study.architectures:{KINDS[self.spec]}")
        return blank.trained(
            self.data.inputs, self.data.labels, Plan(epochs=8, learning_rate=3e-3, reset="everything"), seed
        )

    def tried(self, method):
        """The fingerprint, the copy's verdict and score, the innocents' scores."""
        fp = method.extract(self.owner, self.material)
        seen = [Observation(m.card, fp.probes.ids, m.ask(fp.probes), fp.probes.digest) for m in self.innocents]
        verdict = method.verify(fp, self.copy, Null("unrelated", tuple(seen)), alpha=0.05, early=False)
        return fp, verdict, np.array([method.score(fp, s) for s in seen])


SCENES: dict[str, Scene] = {}


def scene(spec):
    pytest.importorskip("torch")
    if spec.startswith("sklearn"):
        pytest.importorskip("sklearn")
    if spec not in SCENES:
        SCENES[spec] = Scene(spec)
    return SCENES[spec]


# --- what is served


@pytest.mark.parametrize(
    ("method", "served"),
    [
        (IPGuard, {"image", "tabular"}),
        (NaturalErrors, {"image", "tabular", "text"}),
        (NoiseAgreement, {"image", "tabular", "text"}),
    ],
)
def test_a_method_says_what_it_serves(method, served):
    assert method.serves == served
    rng = np.random.default_rng(0)
    owner = ToyClassifier.fresh((16, 12, 5), 1)
    material = Material(rng.random((300, 16), np.float32), rng.integers(0, 5, 300))
    for content in ("image", "tabular", "text", "sound"):
        given = replace(material, content=content)
        if content in served:
            assert len(method(probes=4).extract(owner, given).probes) == 4
        else:
            with pytest.raises(
                UsageError, match=f"expected image or tabular.* data for {method.name}, got {content}: choose"
            ):
                method(probes=4).extract(owner, given)


def test_api_extract_tells_the_method_what_the_data_is():
    owner = scene("text:topics").owner
    with pytest.raises(UsageError, match="image or tabular data for ipguard, got text"):
        api.extract(owner, load_dataset("text:topics"), IPGuard(probes=4))
    fp = api.extract(owner, load_dataset("text:topics"), NoiseAgreement(probes=30))
    assert set(np.unique(fp.probes.array)) <= set(range(64))


# --- tables


def test_noise_on_a_table_recognises_a_copy():
    fp, verdict, innocents = scene("sklearn:breast_cancer").tried(NoiseAgreement(probes=200))
    assert fp.probes.array.shape == (200, 30) and abs(fp.probes.array).max() <= 4
    assert verdict.outcome == "match" and verdict.score > innocents.max()
    assert innocents.mean() > 0.7  # two classes: innocents agree far above one half


def test_natural_errors_of_a_table_are_few_and_shared():
    """About a dozen errors on 569 rows: one cannot convict with these, and the verdict does not."""
    fp, verdict, innocents = scene("sklearn:breast_cancer").tried(NaturalErrors())
    assert 2 <= len(fp.probes) < 40 and innocents.mean() > 0.5
    assert verdict.outcome == "inconclusive"


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_boundary_points_of_two_classes_lie_across_the_boundary(margin):
    here = scene("sklearn:breast_cancer")
    method = IPGuard(probes=40, margin=margin)
    fp, verdict, innocents = here.tried(method)
    lead, margins = (np.ptp(here.owner.linearise(x)[0], axis=1) for x in (fp.probes.array, here.data.inputs))
    assert set(fp.answers.labels.tolist()) == {0, 1}
    assert (lead > 0.99 * np.quantile(margins, margin)).all()
    assert abs(fp.probes.array).max() <= 4
    assert method.score(fp, fp.controls["owner"][0]) == 1
    # A wide gap leads into the other class, where all models agree: the verdict says so instead of accusing.
    assert innocents.mean() < 0.8 if margin == 0 else "positive-control-failed" in verdict.flags


def test_boundary_points_of_a_table_recognise_a_copy():
    fp, verdict, innocents = scene("sklearn:wine").tried(IPGuard(probes=40))
    assert len(fp.probes) == 40 and verdict.outcome == "match" and innocents.mean() < 0.8


# --- texts


@pytest.mark.parametrize("method", [NaturalErrors(), NoiseAgreement(probes=200)])
def test_texts_recognise_a_copy(method):
    here = scene("text:topics")
    fp, verdict, innocents = here.tried(method)
    assert verdict.outcome == "match" and verdict.score > innocents.max() + 0.1
    np.testing.assert_array_equal(fp.probes.array, here.material.stored(fp.probes.array))


def test_noise_for_texts_has_the_tokens_of_the_data():
    tokens = np.array([[3, 3, 3, 9], [3, 3, 3, 9]] * 20, np.float32)
    material = Material(tokens, np.zeros(40, int), bounds=(0.0, 63.0), levels=64, content="text")
    noise = NoiseAgreement(probes=500).extract(ToyClassifier.fresh((4, 3)), material).probes.array
    assert set(np.unique(noise)) == {3, 9}
    np.testing.assert_allclose((noise == 9).mean(axis=0), 0.25, atol=0.08)
