"""The scikit-learn classifier."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import partrain
from partrain.errors import ConfigError, DataError, FailedRun, MissingPackage
from partrain.sklearn import PartrainClassifier
from tests.noise_data import noise_examples
from tests.program import ROOT

NETWORK: list[Any] = [{"conv": {"filters": 2, "kernel": 3}}, "relu", "flatten", {"dense": {"units": 10}}]
# Few steps: what is learned does not matter.
SHORT: dict[str, Any] = {"network": NETWORK, "epochs": 2}
IMAGES, LABELS = noise_examples(60)


@pytest.fixture(autouse=True)
def _in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def fitted() -> PartrainClassifier:
    return PartrainClassifier(**SHORT).fit(IMAGES, LABELS)


def bright_rows(num_examples: int = 120) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Return images 8 x 8 whose bright row is their class, a row for each image."""
    rows = np.arange(num_examples) % 3
    images = np.random.default_rng(0).normal(size=(num_examples, 8, 8))
    images[np.arange(num_examples), 2 * rows] += 3
    return images.reshape(num_examples, 64), np.array(["top", "middle", "bottom"])[rows]


def test_it_passes_the_checks_of_scikit_learn() -> None:
    results = check_estimator(PartrainClassifier(), on_skip=None)
    assert len(results) > 50
    assert {result["status"] for result in results} <= {"passed", "skipped"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_has_the_bits_of_a_run_with_its_configuration(workers: int, dtype: Any, tmp_path: Path) -> None:
    images = IMAGES.astype(dtype)
    options = {"batch_size": 20, "lr": 0.01, "random_state": 5, "workers": workers}
    classifier = PartrainClassifier(**SHORT, **options).fit(images, LABELS)
    written = {
        "seed": 5,
        "data": {"name": "memory", "validation_examples": 0},
        "network": NETWORK,
        "training": {"epochs": 2, "batch_size": 20, "optimizer": {"lr": 0.01}},
        "logging": {"plots": False},
    }
    for config in (written, classifier.config_ | {"logging": {"plots": False}}):
        run = partrain.train(config, data=(images, LABELS), test=(images, LABELS), workers=0, quiet=True)
        np.testing.assert_array_equal(classifier.predict_proba(images), run.predict_proba(images))
        np.testing.assert_array_equal(classifier.predict(images), run.predict(images))


def test_arguments_replace_values_of_the_configuration_and_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text(
        "data: {name: mnist}\nnetwork: [flatten, dense: {units: 10}]\nseed: 3\n"
        "training: {epochs: 4, batch_size: 30, optimizer: {lr: 0.5, beta1: 0.8}}\n"
    )
    before = file.read_text()
    config = PartrainClassifier(config=file, lr=np.float64(0.25), epochs=np.int64(1)).fit(IMAGES, LABELS).config_
    assert config["training"]["optimizer"] == config["training"]["optimizer"] | {"lr": 0.25, "beta1": 0.8}
    assert (config["training"]["epochs"], config["training"]["batch_size"], config["seed"]) == (1, 30, 3)
    assert config["network"] == ["flatten", {"dense": {"units": 10}}]
    assert config["data"]["name"] == "memory"
    assert file.read_text() == before
    mapping = {"training": {"epochs": 1}, "data": {"name": "memory", "validation_examples": 10}}
    config = PartrainClassifier(config=mapping).fit(IMAGES, LABELS).config_
    assert (config["data"]["train_examples"], config["data"]["validation_examples"]) == (50, 10)
    assert mapping == {"training": {"epochs": 1}, "data": {"name": "memory", "validation_examples": 10}}


def test_example_configurations_are_found_by_name() -> None:
    classifier = PartrainClassifier(config="mnist.yaml", epochs=1).fit(IMAGES, LABELS)
    assert classifier.config_["training"]["schedule"]["name"] == "cosine"


@pytest.mark.parametrize(
    "classes", [["b", "a", "ç"], [-5, 3, 2**40], [0.0, 1.0, 7.0], np.array(["x", 1, "y"], object)[[0, 2, 0]]]
)
def test_labels_of_any_type_are_predicted_as_they_are(classes: Any) -> None:
    images, names = bright_rows()
    labels = np.array(classes)[np.unique(names, return_inverse=True)[1]]
    classifier = PartrainClassifier(image_shape=(8, 8), lr=0.01).fit(images, labels)
    assert classifier.classes_.tolist() == sorted(set(classes))
    assert classifier.score(images, labels) > 0.9
    assert classifier.predict(images).dtype == labels.dtype


def test_truth_values_and_a_single_class_are_labels() -> None:
    images, names = bright_rows()
    classifier = PartrainClassifier(image_shape=(8, 8), lr=0.01).fit(images, names == "top")
    assert classifier.classes_.tolist() == [False, True]
    assert classifier.score(images, names == "top") > 0.9
    alone = PartrainClassifier().fit(images, ["only"] * len(images))
    assert set(alone.predict(images)) == {"only"}
    assert (alone.predict_proba(images) == 1).all()


def test_the_same_images_in_every_form_give_the_same_bits() -> None:
    images = noise_examples(60)[0].astype(np.float64)
    N, H, W = images.shape
    expected = PartrainClassifier(**SHORT | {"network": tuple(NETWORK)}).fit(images, LABELS).predict_proba(images)
    flat = images.reshape(N, -1)
    frame = pandas.DataFrame(flat, columns=[f"pixel{k}" for k in range(H * W)])
    forms: list[tuple[Any, dict[str, Any]]] = [
        (images[:, np.newaxis], {}),
        (images[..., np.newaxis], {"layout": "channels_last"}),
        (images.tolist(), {}),
        (np.asfortranarray(images), {}),
        (flat, {"image_shape": (H, W)}),
        (flat, {"image_shape": (1, H, W)}),
        (flat, {"image_shape": (H, W, 1), "layout": "channels_last"}),
        (frame, {"image_shape": (H, W)}),
    ]
    for form, options in forms:
        classifier = PartrainClassifier(**SHORT, **options).fit(form, LABELS)
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)
        assert classifier.n_features_in_ == H * W
        if form is not frame:
            again = images.reshape(N, *classifier.image_shape_)
            np.testing.assert_array_equal(classifier.predict_proba(again), expected)
    assert classifier.feature_names_in_.tolist() == frame.columns.tolist()


def test_channels_last_and_channels_first_are_the_same_images() -> None:
    images = np.random.default_rng(0).integers(0, 255, (30, 6, 7, 3), dtype=np.uint8)
    first = PartrainClassifier(epochs=1).fit(np.moveaxis(images, 3, 1), LABELS[:30])
    last = PartrainClassifier(epochs=1, layout="channels_last").fit(images, LABELS[:30])
    np.testing.assert_array_equal(
        first.predict_proba(np.moveaxis(images, 3, 1)), last.predict_proba(images.reshape(30, -1))
    )
    with pytest.raises(DataError, match=r"layout='channels_last'"):
        PartrainClassifier().fit(images, LABELS[:30])


def test_default_network_convolves_images_and_not_vectors() -> None:
    def kinds(classifier: PartrainClassifier, shape: tuple[int, ...]) -> str:
        network = classifier.fit(np.ones((4, *shape)), [0, 1, 0, 1]).config_["network"]
        return " ".join(layer if isinstance(layer, str) else next(iter(layer)) for layer in network)

    dense = "flatten dense relu dense"
    assert kinds(PartrainClassifier(epochs=1), (64,)) == dense
    assert kinds(PartrainClassifier(epochs=1, image_shape=(8, 8)), (64,)) == f"conv relu max_pool {dense}"
    assert kinds(PartrainClassifier(epochs=1), (3, 16, 24)) == f"conv relu max_pool conv relu max_pool {dense}"


def test_outputs_without_a_class_have_no_column() -> None:
    present = LABELS < 4
    classifier = PartrainClassifier(**SHORT).fit(IMAGES[present], LABELS[present])
    probabilities = classifier.predict_proba(IMAGES)
    assert probabilities.shape == (60, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_generator_of_random_numbers_gives_the_seed() -> None:
    def seed(random_state: Any) -> int:
        classifier = PartrainClassifier(**SHORT, random_state=random_state).fit(IMAGES, LABELS)
        return int(classifier.config_["seed"])

    assert seed(None) == 0
    assert seed(2**40) == 2**40
    generator = np.random.RandomState(0)
    seeds = [seed(generator), seed(generator)]
    assert seeds == np.random.RandomState(0).randint(2**31 - 1, size=2).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_calls_of_partial_fit_with_the_same_examples_have_the_bits_of_as_many_epochs(workers: int) -> None:
    network = ["flatten", {"dropout": {"rate": 0.2}}, *NETWORK[3:]]
    options: dict[str, Any] = {
        "network": network,
        "workers": workers,
        "config": {"training": {"augment": {"shift": 1}}},
    }
    expected = PartrainClassifier(**options, epochs=3).fit(IMAGES, LABELS).predict_proba(IMAGES)
    alone = PartrainClassifier(**options, random_state=0)
    for _ in range(3):
        alone.partial_fit(IMAGES, LABELS, classes=range(10))
    after_fit = PartrainClassifier(**options, epochs=1).fit(IMAGES, LABELS)
    after_fit.partial_fit(IMAGES, LABELS)
    after_fit = pickle.loads(pickle.dumps(after_fit)).partial_fit(IMAGES, LABELS)
    for classifier in (alone, after_fit):
        np.testing.assert_array_equal(classifier.predict_proba(IMAGES), expected)
        assert classifier.config_["training"]["epochs"] == 3


def test_steps_of_partial_fit_are_counted_whatever_the_number_of_examples() -> None:
    schedule = {"name": "step", "every_steps": 3, "factor": 1e-20}
    classifier = PartrainClassifier(
        network=NETWORK, batch_size=20, lr=0.01, config={"training": {"schedule": schedule}}
    )
    probabilities = []
    for part in (slice(0, 40), slice(40, 60), slice(0, 60)):  # steps 1 and 2; 3; 4 to 6, which change nothing
        classifier.partial_fit(IMAGES[part], LABELS[part], classes=range(10))
        probabilities.append(classifier.predict_proba(IMAGES))
    assert np.abs(probabilities[1] - probabilities[0]).max() > 1e-3
    np.testing.assert_array_equal(probabilities[2], probabilities[1])


def test_partial_fit_keeps_the_normalisation_of_the_first_call(capfd: pytest.CaptureFixture[str]) -> None:
    classifier = PartrainClassifier(**SHORT).partial_fit(IMAGES, LABELS, classes=range(10))
    expected = classifier.predict_proba(IMAGES)
    few = LABELS < 3
    classifier.set_params(lr=1e-30).partial_fit(255 - IMAGES[few], LABELS[few])
    np.testing.assert_array_equal(classifier.predict_proba(IMAGES), expected)
    assert capfd.readouterr() == ("", ""), "a call without examples of a class is nothing to warn of"


def test_partial_fit_refuses_what_it_cannot_continue_and_keeps_the_state() -> None:
    classifier = PartrainClassifier(**SHORT)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier.partial_fit(IMAGES, LABELS)
    classifier.partial_fit(IMAGES, LABELS, classes=range(10))
    expected = classifier.predict_proba(IMAGES)

    def fails(error: type[Exception], words: str, y: Any = LABELS, classes: Any = None, **parameters: Any) -> None:
        before = classifier.get_params()
        with pytest.raises(error, match=words):
            classifier.set_params(**parameters).partial_fit(IMAGES, y, classes)
        classifier.set_params(**before)
        np.testing.assert_array_equal(classifier.predict_proba(IMAGES), expected)

    fails(ValueError, "classes are", classes=[0, 1])
    fails(ValueError, r"y has the labels \[10\]", y=LABELS + 1)
    fails(ConfigError, "not the one of the first call", network=["flatten", {"dense": {"units": 10}}])
    for training, key in (
        ({"schedule": {"name": "cosine"}}, "decay_steps"),
        ({"max_steps": 1}, "max_steps"),
        ({"stop_early": {}}, "stop_early"),
        ({"privacy": {"delta": 1e-5, "noise_multiplier": 1.0}, "per_example": {"clip": 1.0}}, "privacy"),
    ):
        fails(ConfigError, f"partial_fit: training.*{key}", config={"training": training})


def test_copies_and_files_of_a_fitted_classifier_predict_the_same(fitted: PartrainClassifier, tmp_path: Path) -> None:
    expected = fitted.predict_proba(IMAGES)
    joblib.dump(fitted, tmp_path / "classifier.joblib")
    for copied in (
        copy.deepcopy(fitted),
        pickle.loads(pickle.dumps(fitted)),
        joblib.load(tmp_path / "classifier.joblib"),
        joblib.load(tmp_path / "classifier.joblib", mmap_mode="r"),
    ):
        np.testing.assert_array_equal(copied.predict_proba(IMAGES), expected)
    with pytest.raises(NotFittedError):
        clone(fitted).predict(IMAGES)


def test_fit_writes_no_files_and_prints_only_if_asked(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    PartrainClassifier(**SHORT).fit(IMAGES, LABELS).predict(IMAGES)
    assert capfd.readouterr() == ("", "")
    PartrainClassifier(**SHORT, verbose=1).fit(IMAGES, LABELS)
    said = capfd.readouterr()
    assert said.out == ""
    assert "epoch 2/2" in said.err
    assert not list(tmp_path.iterdir())


def test_pipelines_and_searches_use_it() -> None:
    images, names = bright_rows()
    pipeline = make_pipeline(StandardScaler(), PartrainClassifier(image_shape=(8, 8), epochs=5))
    search = GridSearchCV(pipeline, {"partrainclassifier__lr": [1e-30, 0.001, 0.01]}, cv=3).fit(images, names)
    assert search.best_params_ == {"partrainclassifier__lr": 0.01}
    assert search.score(images, names) > 0.9
    to_images = FunctionTransformer(lambda rows: rows.reshape(-1, 8, 8))
    assert make_pipeline(to_images, PartrainClassifier(lr=0.01)).fit(images, names).score(images, names) > 0.9


def test_threads_give_the_scores_of_one_thread() -> None:
    images, names = bright_rows(60)
    classifier = PartrainClassifier(image_shape=(8, 8), epochs=2)
    alone = cross_val_score(classifier, images, names, cv=4)
    with joblib.parallel_config("threading", n_jobs=3):
        np.testing.assert_array_equal(cross_val_score(classifier, images, names, cv=4), alone)


def test_without_workers_it_trains_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """So trainings in several processes do not take processors from each other."""
    started: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread)))
    network = ["flatten", {"dense": {"units": 600}}, "relu", {"dense": {"units": 10}}]
    classifier = PartrainClassifier(network, epochs=1).fit(IMAGES, LABELS)
    classifier.partial_fit(IMAGES, LABELS)
    assert not started


SEARCH = """
import numpy as np
from sklearn.model_selection import GridSearchCV
from partrain.sklearn import PartrainClassifier

images = np.random.default_rng(0).normal(size=(60, 8, 8))
images[np.arange(60), np.arange(60) % 3] += 1
for n_jobs in (1, 2):
    search = GridSearchCV(PartrainClassifier(epochs=2), {"lr": [0.001, 0.01, 0.1]}, n_jobs=n_jobs, cv=3)
    print(search.fit(images, np.arange(60) % 3).cv_results_["mean_test_score"].tolist())
"""


@pytest.mark.slow
def test_search_in_a_script_gives_the_same_scores_in_processes(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(SEARCH)
    ended = subprocess.run(
        [sys.executable, "search.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert ended.stderr == ""
    first, second = ended.stdout.splitlines()
    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == ["search.py"]


def test_wrong_parameters_are_errors_that_name_them() -> None:
    def fails(error: type[Exception], words: str, X: Any = IMAGES, **parameters: Any) -> None:
        with pytest.raises(error, match=words):
            PartrainClassifier(**parameters).fit(X, LABELS)

    fails(ConfigError, r"network.1 \(dense1\): 9 outputs are too few", network=["flatten", {"dense": {"units": 9}}])
    fails(ConfigError, r"training.optimizer.lr", lr=-1.0)
    fails(ConfigError, r"^PartrainClassifier: 1 error in the configuration\n  training.epochs: ", epochs=0)
    fails(ConfigError, r"network: must be a list", network="cnn")
    fails(ValueError, r"image_shape is 28, expected a tuple", image_shape=28)
    fails(ValueError, r"image_shape is \('28', '28'\), expected a tuple", image_shape=("28", "28"))
    fails(ConfigError, r"workers: -1", workers=-1)
    fails(ConfigError, r"training: ", config={"training": 7})
    fails(ConfigError, r"config: is a int", config=7)
    fails(ValueError, r"image_shape is \(5, 5\), but the examples of X have the shape \(28, 28\)", image_shape=(5, 5))
    fails(ValueError, r"expected images of 2 or 3 axes", X=np.ones((60, 2, 2, 2, 2)))
    fails(FailedRun, r"is not finite", lr=1e30)


def test_other_images_than_those_of_the_fit_are_refused(fitted: PartrainClassifier) -> None:
    with pytest.raises(ValueError, match=r"images of the shape \(28, 27\).* fitted to images of the shape \(28, 28\)"):
        fitted.predict(IMAGES[:, :, 1:])
    with pytest.raises(ValueError, match="X has 700 features, but PartrainClassifier is expecting 784"):
        fitted.predict(IMAGES.reshape(60, -1)[:, :700])


def test_failed_fit_leaves_no_older_network() -> None:
    classifier = PartrainClassifier(**SHORT).fit(IMAGES, LABELS)
    with pytest.raises(ConfigError):
        classifier.set_params(epochs=0).fit(IMAGES, LABELS)
    with pytest.raises(NotFittedError):
        classifier.predict(IMAGES)


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "partrain.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(MissingPackage, match=r"pip install 'partrain\[sklearn\]'"):
        importlib.import_module("partrain.sklearn")
