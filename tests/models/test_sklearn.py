"""scikit-learn classifiers: what is asked, whose classes are whose, and digests of what was fitted."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minutia import catalog
from minutia.checks import check_model
from minutia.core.access import Access
from minutia.core.errors import ModelError, UsageError
from minutia.core.probe import numbered
from minutia.models.sklearn import SklearnModel

pytest.importorskip("sklearn")
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

RNG = np.random.default_rng(0)
X = RNG.random((150, 6)).astype(np.float32)
Y = X[:, :3].argmax(axis=1)
PROBES = numbered(RNG.random((20, 1, 2, 3)).astype(np.float32), {})
FLAT = PROBES.array.reshape(20, 6)
KINDS = {
    "forest": lambda: RandomForestClassifier(8, random_state=0),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "boosted": lambda: HistGradientBoostingClassifier(max_iter=3, random_state=0),
    "logistic": lambda: LogisticRegression(),
    "ridge": lambda: RidgeClassifier(),
    "network": lambda: MLPClassifier((8,), max_iter=20, random_state=0, tol=1),
    "neighbours": lambda: KNeighborsClassifier(algorithm="kd_tree"),
    "centroids": lambda: NearestCentroid(),
    "machine": lambda: SVC(),
    "pipeline": lambda: make_pipeline(StandardScaler(), SVC(kernel="linear")),
}


def fitted(kind, x=X, y=Y):
    return KINDS[kind]().fit(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_the_estimator_does(kind):
    estimator = fitted(kind)
    model = SklearnModel(estimator)
    answers = model.ask(PROBES)
    # libsvm lets classes vote, and may name another than the largest margin; centroids have priors in one of the two
    if kind not in ("machine", "pipeline", "centroids"):
        np.testing.assert_array_equal(answers.labels, estimator.predict(FLAT))
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(answers.scores, estimator.predict_proba(FLAT), atol=1e-6)
    check_model(model, PROBES)


@pytest.mark.parametrize("kind", KINDS)
def test_its_id_is_that_of_what_was_fitted(kind):
    model = SklearnModel(fitted(kind))
    assert model.card.id == SklearnModel(fitted(kind)).card.id != SklearnModel(fitted(kind, X[5:], Y[5:])).card.id
    model.ask(PROBES)
    assert SklearnModel(model._estimator).card.id == model.card.id, "asking leaves no trace"


def test_the_id_is_the_same_in_another_process():
    code = (
        "import numpy as np; from tests.models.test_sklearn import *;"
        "print(*[SklearnModel(fitted(k)).card.id for k in ('forest', 'boosted', 'pipeline')])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [SklearnModel(fitted(k)).card.id for k in ("forest", "boosted", "pipeline")]


def test_two_classes_have_one_margin():
    model = SklearnModel(SVC().fit(X, Y > 0))
    margin = model._estimator.decision_function(FLAT)
    answers = model.ask(PROBES)
    np.testing.assert_allclose(answers.logits, np.stack([0 * margin, margin], axis=1), rtol=1e-6)
    np.testing.assert_array_equal(answers.labels, margin > 0)


def test_classes_that_were_never_fitted_have_probability_nothing():
    y = np.array([0, 2, 5])[Y]
    model = SklearnModel(KINDS["forest"]().fit(X, y))
    answers = model.ask(PROBES)
    assert answers.scores.shape == (20, 6) and not answers.scores[:, [1, 3, 4]].any()
    np.testing.assert_array_equal(answers.labels, model._estimator.predict(FLAT))
    margins = SklearnModel(RidgeClassifier().fit(X, y))
    assert Access.LOGITS not in margins.access and margins.ask(PROBES).logits is None
    check_model(margins, PROBES)


def test_names_stand_for_the_owners_classes():
    names = np.array(["eel", "cat", "dog"])
    estimator = KINDS["tree"]().fit(X, names[Y])
    order = ["dog", "owl", "eel", "cat"]
    labels = SklearnModel(estimator, classes=order).ask(PROBES).labels
    assert [order[label] for label in labels] == estimator.predict(FLAT).tolist()
    own = SklearnModel(estimator).ask(PROBES).labels
    np.testing.assert_array_equal(estimator.classes_[own], estimator.predict(FLAT))
    with pytest.raises(UsageError, match=r"expected every class of sklearn:.*got no 'eel'"):
        SklearnModel(estimator, classes=["cat", "dog"])


def test_double_precision_goes_in():
    """Half a step of single precision beside a threshold decides; the estimator sees the probe, exactly."""
    estimator = LogisticRegression().fit(X, Y)
    seen = []
    estimator.predict_proba = lambda x: (seen.append(x), LogisticRegression.predict_proba(estimator, x))[1]
    SklearnModel(estimator).ask(PROBES)
    assert seen[0].dtype == np.float64
    np.testing.assert_array_equal(seen[0], FLAT)


@pytest.mark.parametrize(
    ("estimator", "sentence"),
    [
        (RandomForestClassifier(), "without classes_: fit it first"),
        (lambda x: x, "expected a fitted classifier"),
        (DummyClassifier().fit(X, np.zeros(150)), "two or more classes"),
        (DecisionTreeClassifier().fit(X, np.stack([Y, Y], axis=1)), "one output with two or more classes"),
        (DummyClassifier().fit(X, Y * 10**8), "list them with classes="),
    ],
)
def test_what_is_no_classifier_is_one_sentence(estimator, sentence):
    with pytest.raises(ModelError, match=sentence):
        SklearnModel(estimator)


def test_one_against_one_margins_and_wrong_sizes_are_one_sentence():
    y = (X[:, :4]).argmax(axis=1)
    with pytest.raises(ModelError, match="decision_function_shape='ovr'"):
        SklearnModel(SVC(decision_function_shape="ovo").fit(X, y)).ask(PROBES)
    with pytest.raises(ModelError, match="to take 5 features, got ValueError") as caught:
        SklearnModel(fitted("logistic")).ask(numbered(np.zeros((2, 5)), {}))
    assert "\n" not in str(caught.value)


FACTORY = """
import numpy as np
from sklearn.tree import DecisionTreeClassifier
def make(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((40, 6))
    return DecisionTreeClassifier(random_state=seed).fit(x, np.where(x[:, 0] > 0.5, "dog", "cat"))
def broken():
    raise ValueError("no data\\nat all")
"""


def test_a_factory_is_named_on_the_command_line_and_makes_a_null(tmp_path):
    path = tmp_path / "sk_factory.py"
    path.write_text(FACTORY)
    model = catalog.model(f"sklearn:{path}:make?classes=cat,dog")
    assert model.ask(numbered(np.eye(6)[:3], {})).labels.tolist()[0] == 1
    ids = [catalog.model(f"sklearn:{path}:make?seed={seed}").card.root for seed in (0, 1, 2, 1)]
    assert len(set(ids)) == 3 and ids[1] == ids[3]
    with pytest.raises(ModelError, match="got ValueError: no data; MINUTIA_DEBUG"):
        catalog.model(f"sklearn:{path}:broken")
    with pytest.raises(UsageError, match="whole number"):
        catalog.model(f"sklearn:{path}:make?seed=x")
    with pytest.raises(ModelError, match="expected a fitted classifier"):
        catalog.model("sklearn:math:gcd")


def test_a_pickle_is_never_read(tmp_path):
    import pickle

    path = tmp_path / "model.joblib"
    path.write_bytes(pickle.dumps(fitted("tree")))
    with pytest.raises(UsageError, match=r"module:name or file.py:name after sklearn:"):
        catalog.model(f"sklearn:{path}")
    with pytest.raises(ModelError, match="unknown content"):
        catalog.model(str(path))
