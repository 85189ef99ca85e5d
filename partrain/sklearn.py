"""A scikit-learn classifier: `PartrainClassifier` trains a convolutional network on arrays.

    from partrain.sklearn import PartrainClassifier

    search = GridSearchCV(PartrainClassifier(image_shape=(8, 8)), {"lr": [0.001, 0.003, 0.01]})
    search.fit(X, y)

It needs the extra `sklearn`: pip install 'partrain[sklearn]'.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partrain.analysis.prediction import Classifier
from partrain.config.reader import parse_config
from partrain.config.schema.config import Config
from partrain.config.starter import suggested_network
from partrain.data.dataset import Dataset
from partrain.data.image_arrays import Layout
from partrain.errors import MissingPackage
from partrain.interface.api_arguments import interruptible, worker_count
from partrain.interface.config_argument import ConfigArgument, config_mapping
from partrain.interface.memory_data import array_to_classify, untested_data
from partrain.system.messages import Messages
from partrain.training.network_training import TrainedNetwork, train_epoch, train_network
from partrain.training.session import Session

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingPackage("scikit-learn (1.6 or newer)", "sklearn", "partrain.sklearn") from error

__all__ = ["PartrainClassifier"]

# The number of epochs if neither the argument nor the configuration gives one.
_EPOCHS = 20
# A random generator gives seeds below this.
_MAX_SEED = 2**31 - 1
# Other numbers become the first of these.
_DTYPES = [np.float32, np.uint8]


class PartrainClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional network, trained on CPUs and bit-for-bit reproducible, as a scikit-learn classifier.

    The result is a function of parameters, `X` and `y` alone, whatever `workers` and `n_jobs` are. Fitting writes no
    files: `partrain.train(classifier.config_, data=…, test=…)` trains a run with the same parameters.

    Parameters
    ----------
    network : list, default=None
        The layers, as in a configuration; the last has a unit for each class. None: the network of `config`, or else
        one that suits the size of the images: up to three convolutions with pooling, and a dense layer of 64 units.
    image_shape : tuple, default=None
        The shape of one image, (rows, columns) or (channels, rows, columns), if `X` has a row per image. None: as `X`
        has it; rows are then vectors without neighbouring pixels, and convolutions make no sense.
    epochs : int, default=None
        How many times to go through the examples. None: as in `config`, or else 20.
    batch_size : int, default=None
        The number of examples per step. None: as in `config`, or else 32.
    lr : float, default=None
        The optimizer's learning rate. None: as in `config`, or else 0.001.
    layout : {"channels_first", "channels_last"}, default=None
        The order of the axes of images with channels: (channels, rows, columns) or (rows, columns, channels). None:
        as in `config`, or else channels first.
    config : str, path, mapping or Config, default=None
        A configuration with everything else: a YAML file, the name of an example ("mnist.yaml"), or a mapping such as
        `{"training": {"augment": {"shift": 2}}}`. The arguments above replace its values, and `X` and `y` its data.
        All examples are for training, unless `{"data": {"name": "memory", "validation_examples": 500}}` holds out the
        last ones, for `training.stop_early`.
    random_state : int, RandomState or None, default=None
        The seed of initial parameters, order of the examples, augmentation and dropout. None: the seed of `config`, or
        else 0; then every fit gives the same bits, too.
    workers : int, default=0
        The number of worker processes that train. 0: this process, in one thread, which suits `n_jobs` of
        scikit-learn and small data. None: the number of usable processors.
    verbose : int, default=0
        Whether to print progress to stderr.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        The number of values of an example.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of the columns of `X`, if it is a data frame with such names.
    image_shape_ : tuple
        The shape of an image in `X`.
    config_ : dict
        The resolved configuration.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from partrain.sklearn import PartrainClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> PartrainClassifier(image_shape=(8, 8)).fit(X[:1200], y[:1200]).score(X[1200:], y[1200:]) > 0.9
    True

    Notes
    -----
    Images are uint8 or float32; other numbers are rounded to float32. partrain normalises each channel, not each
    feature: scale features of different units first, for example with `StandardScaler`.

    The first fit on a machine compiles the kernels, which takes 10 to 20 s, and keeps them in `~/.cache/partrain/`.
    """

    _trained: TrainedNetwork

    def __init__(
        self,
        network: Sequence[Any] | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        layout: Layout = None,
        config: ConfigArgument | None = None,
        random_state: Any = None,
        workers: int | None = 0,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.layout = layout
        self.config = config
        self.random_state = random_state
        self.workers = workers
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> PartrainClassifier:
        """Train a network.

        Parameters
        ----------
        X : array-like of shape (N, rows, columns), (N, channels, rows, columns) or (N, features)
            The images; see `image_shape` and `layout`.
        y : array-like of shape (N,)
            The labels, of any type.

        Returns
        -------
        The fitted classifier.

        Raises
        ------
        ValueError
            `X` or `y` cannot be used.
        partrain.errors.UserError
            A parameter is invalid, or the network does not fit the images or the classes.
        partrain.errors.FailedRun
            The training failed, for example because the learning rate is too large.
        """
        if hasattr(self, "_trained"):
            del self._trained  # if this fit fails, the classifier is not that of the examples before
        array, targets = self._read_examples(X, y, is_first=True)
        self.classes_, labels = np.unique(targets, return_inverse=True)
        self._train(array, labels, train_network)
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> PartrainClassifier:
        """Train for one more epoch, on examples that may be others in each call, and any number of them.

        Everything continues: parameters, the optimizer's moments, the schedule, and the numbers of the
        epochs, which decide the order of the examples and their augmentation. The mean and the standard deviation of
        the images stay those of the first call. So n calls with the same examples give the bits of `fit` with
        `epochs=n`, and n calls after `fit` those of n more epochs.

        The result depends on how the examples are divided among calls. `epochs` has no effect.

        Parameters
        ----------
        X, y : array-like
            The examples, as for `fit`.
        classes : array-like, default=None
            All labels that calls will bring; required in the first call, unless `fit` was called before.

        Returns
        -------
        The classifier.

        Raises
        ------
        As `fit`. The configuration may not have `training.privacy`, `stop_early`, `max_steps`, the
        schedule `plateau`, or a cosine, linear or one-cycle schedule without `decay_steps`: these need a training as a
        whole. After an error, the state is that before the call.
        """
        before = self._trained if hasattr(self, "_trained") else None
        if before is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        labels = np.unique(np.asarray(classes)) if before is None else self.classes_
        if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), labels):
            raise ValueError(f"classes are {classes}, but those of the first call or of fit are {labels}")
        array, targets = self._read_examples(X, y, is_first=before is None)
        if unknown := sorted(set(targets.tolist()) - set(labels.tolist())):
            raise ValueError(f"y has the labels {unknown}, which are not among the classes {labels}")
        self.classes_ = labels
        self._train(array, np.searchsorted(labels, targets), functools.partial(train_epoch, before=before), before)
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each example, (N,).

        Parameters
        ----------
        X : array-like
            The images, as for `fit`.
        """
        indices = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[indices]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class for each example, (N, n_classes), in the order of `classes_`.

        Parameters
        ----------
        X : array-like
            The images, as for `fit`.
        """
        check_is_fitted(self)
        (array,) = self._read_again(X)
        images = array_to_classify(array, self._trained.network.input_shape, self._trained.config.data.layout)
        messages = Messages(quiet=not self.verbose)
        probabilities = Classifier(self._trained, messages.say, messages.warn).probabilities(images)
        num_classes = len(self.classes_)
        if probabilities.shape[1] == num_classes:
            return probabilities
        # The network has outputs without a class, as when a fold lacks the examples of a rare one.
        present = probabilities[:, :num_classes]
        scaled: NDArray[np.float64] = present / present.sum(axis=1, keepdims=True)
        return scaled

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_trained")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _train(
        self,
        array: NDArray[Any],
        labels: NDArray[Any],
        train: Callable[[Config, Dataset, Session], TrainedNetwork],
        before: TrainedNetwork | None = None,
    ) -> None:
        messages = Messages(quiet=not self.verbose)
        config = self._configuration(messages)
        if before is not None:
            config = config.model_copy(update={"seed": before.config.seed})
        dataset = untested_data(array, labels, tuple(map(str, self.classes_)), config.data.layout)
        with interruptible() as interruption:
            num_workers = worker_count(self.workers)
            # Without workers, other processes may train beside this one.
            threads = None if num_workers else 1
            session = Session(num_workers, [], messages, interruption, update_threads=threads)
            self._trained = train(config, dataset, session)
        self.config_ = self._trained.config.to_mapping()

    def _read_examples(self, X: ArrayLike, y: ArrayLike, *, is_first: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Check examples and labels to fit to; return the examples in the shape of images, and the labels."""
        if not is_first:
            array, targets = self._read_again(X, y)
            check_classification_targets(targets)
            return array, targets
        array, targets = validate_data(self, X, y, dtype=_DTYPES, order="C", allow_nd=True)
        check_classification_targets(targets)
        shape = (1, *array.shape[1:]) if array.ndim == 2 else array.shape[1:]
        if self.image_shape is not None:
            given = np.asarray(self.image_shape)
            if given.ndim != 1 or given.dtype.kind not in "iu":
                raise ValueError(f"image_shape is {self.image_shape!r}, expected a tuple of numbers such as (28, 28)")
            shape = tuple(given.tolist())
            if math.prod(shape) != math.prod(array.shape[1:]) or (array.ndim > 2 and shape != array.shape[1:]):
                raise ValueError(f"image_shape is {shape}, but the examples of X have the shape {array.shape[1:]}")
        if len(shape) not in (2, 3):
            raise ValueError(f"expected images of 2 or 3 axes, but those of X have the shape {shape}")
        self.image_shape_, self.n_features_in_ = shape, math.prod(shape)
        return np.asarray(array).reshape(len(array), *shape), targets

    def _read_again(self, X: ArrayLike, *y: ArrayLike) -> tuple[NDArray[Any], ...]:
        """Check examples (and labels) that must fit those of the first fit; return them as `_read_examples`."""
        num_axes = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        checks = {"dtype": _DTYPES, "order": "C", "allow_nd": True, "ensure_2d": num_axes <= 2}
        checked = validate_data(self, X, *y, reset=False, **checks)
        array, *targets = checked if y else (checked,)
        if array.ndim > 2 and array.shape[1:] != self.image_shape_:
            raise ValueError(
                f"X has images of the shape {array.shape[1:]}, but {type(self).__name__} was fitted to images of the "
                f"shape {self.image_shape_}"
            )
        return np.asarray(array).reshape(len(array), *self.image_shape_), *targets

    def _configuration(self, messages: Messages) -> Config:
        """Return the configuration that the parameters stand for."""
        config = {} if self.config is None else self.config
        mapping, source = config_mapping(config, messages.say, in_memory=True, layout=self.layout)
        if mapping["data"].get("train_examples") is None:
            mapping["data"] = {"validation_examples": 0} | dict(mapping["data"])
        if self.network is not None:
            mapping["network"] = list(self.network) if isinstance(self.network, tuple) else self.network
        elif "network" not in mapping:
            is_channels_last = mapping["data"].get("layout") == "channels_last"
            rows, columns = self.image_shape_[:2] if is_channels_last else self.image_shape_[-2:]
            mapping["network"] = suggested_network(rows, columns, len(self.classes_))
        for value, keys in (
            (self.epochs, ("training", "epochs")),
            (self.batch_size, ("training", "batch_size")),
            (self.lr, ("training", "optimizer", "lr")),
            (self._seed(), ("seed",)),
        ):
            if value is not None:
                mapping = _with_value(mapping, keys, value.item() if isinstance(value, np.generic) else value)
        if isinstance(training := mapping.get("training", {}), Mapping):
            mapping["training"] = {"epochs": _EPOCHS} | dict(training)
        return parse_config(mapping, source=source if isinstance(config, str | os.PathLike) else type(self).__name__)

    def _seed(self) -> Any:
        """Return the seed that `random_state` gives; None if it gives none."""
        if self.random_state is None or isinstance(self.random_state, int | np.integer):
            return self.random_state
        return check_random_state(self.random_state).randint(_MAX_SEED)


def _with_value(mapping: Any, keys: Sequence[str], value: Any) -> Any:
    """Return a copy of nested mappings with a value replaced; what is no mapping stays, and is reported later."""
    if not isinstance(mapping, Mapping):
        return mapping
    first, *others = keys
    return {**mapping, first: _with_value(mapping.get(first) or {}, others, value) if others else value}
