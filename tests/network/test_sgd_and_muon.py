"""SGD and Muon against plain NumPy: the formulas in the documentation of `torch.optim.SGD` and `torch.optim.Muon`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.kernels.compiler.loading import load
from partrain.kernels.update_rules import Rule
from partrain.network.learning_rate import learning_rate
from partrain.network.muon import Muon
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameters import Parameter, ParameterLayout
from tests.optimizers import optimizer_of

PARAMETERS = ParameterLayout(
    (
        Parameter("conv1.weight", (3, 2, 3, 2), 0.0),
        Parameter("conv1.bias", (3,), 0.0, role="bias"),
        Parameter("group_norm1.weight", (3,), 0.0, role="scale"),
        Parameter("group_norm1.bias", (3,), 0.0, role="shift"),
        Parameter("dense1.weight", (7, 4), 0.0),
        Parameter("dense1.bias", (7,), 0.0, role="bias"),
        Parameter("dense2.weight", (2, 7), 0.0),
        Parameter("dense2.bias", (2,), 0.0, role="bias"),
    )
)
KINDS = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-4)])


@pytest.fixture(scope="module", autouse=True)
def _loaded_kernels():
    for kernels, dtype in (("fast", "float32"), ("loops", "float64")):
        load(ParameterOptimizer.kernels(frozenset(Rule), kernels), dtype)


def sgd_step(w, g, state, o, lr, weight_decay):
    g = g + weight_decay * w
    state["u"] = o.momentum * state.get("u", 0.0) + g
    return w - lr * (g + o.momentum * state["u"] if o.nesterov else state["u"])


def adam_step(w, g, state, o, lr, weight_decay):
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = o.beta1 * state.get("m", 0.0) + (1 - o.beta1) * g
    state["v"] = o.beta2 * state.get("v", 0.0) + (1 - o.beta2) * g * g
    m, v = state["m"] / (1 - o.beta1**t), state["v"] / (1 - o.beta2**t)
    return w - lr * weight_decay * w - lr * m / (np.sqrt(v) + o.eps)


def orthogonalised(g):
    x = g / max(np.linalg.norm(g), 1e-7)
    if len(g) > g.shape[1]:
        x = x.T
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.T if len(g) > g.shape[1] else x


def muon_step(w, g, state, o, lr, weight_decay):
    matrix = g.reshape(len(g), -1)
    state["u"] = o.momentum * state.get("u", 0.0) + (1 - o.momentum) * matrix
    direction = (1 - o.momentum) * matrix + o.momentum * state["u"] if o.nesterov else state["u"]
    scale = math.sqrt(max(1, len(matrix) / matrix.shape[1]))
    return w - lr * weight_decay * w - lr * scale * orthogonalised(direction).reshape(w.shape)


def reference(start, gradients, o, schedule, rule_of, decays):
    """Return the parameters after all steps: `rule_of` a name gives its rule and the learning rate's factor."""
    views = {name: view.copy() for name, view in PARAMETERS.views(start.astype(np.float64)).items()}
    states = {name: {} for name in views}
    for step, gradient in enumerate(gradients, start=1):
        for name, g in PARAMETERS.views(gradient.astype(np.float64)).items():
            rule, factor = rule_of(name)
            lr = learning_rate(step, o, schedule) * factor
            views[name] = rule(views[name], g, states[name], o, lr, o.weight_decay if decays(name) else 0.0)
    return PARAMETERS.join(views)


def drawn(num_steps, dtype):
    rng = np.random.default_rng(0)
    size = PARAMETERS.size
    return rng.standard_normal(size).astype(dtype), rng.standard_normal((num_steps, size)).astype(dtype)


def trained(start, gradients, optimizer, schedule, num_examples=8):
    vector = start.copy()
    made = optimizer_of(vector, optimizer, schedule, parameters=PARAMETERS, last_layer="dense2")
    for step, gradient in enumerate(gradients, start=1):
        made.update(gradient * num_examples, num_examples, step)
    return vector, made


@KINDS
@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer(name="sgd", lr=0.05),
        Optimizer(name="sgd", lr=0.05, weight_decay=0.1),
        Optimizer(name="sgd", lr=0.05, momentum=0.9, weight_decay=0.01),
        Optimizer(name="sgd", lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
    ],
)
def test_fifty_steps_of_sgd_are_those_of_its_formula(optimizer, dtype, tolerance):
    start, gradients = drawn(50, dtype)
    schedule = Schedule(name="cosine", warmup_steps=5, decay_steps=50)
    vector, _ = trained(start, gradients, optimizer, schedule)
    expected = reference(start, gradients, optimizer, schedule, lambda name: (sgd_step, 1), lambda name: True)
    np.testing.assert_allclose(vector, expected, rtol=tolerance, atol=tolerance)


@KINDS
@pytest.mark.parametrize("adam_last_layer", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_fifty_steps_of_muon_are_those_of_its_formula(nesterov, adam_last_layer, dtype, tolerance):
    start, gradients = drawn(50, dtype)
    optimizer = Optimizer(
        name="muon", lr=0.02, adam_lr=0.003, nesterov=nesterov, adam_last_layer=adam_last_layer, weight_decay=0.1
    )
    schedule = Schedule(name="cosine", decay_steps=50)
    vector, _ = trained(start, gradients, optimizer, schedule)

    def rule_of(name):
        is_matrix = name in ("conv1.weight", "dense1.weight") or (name == "dense2.weight" and not adam_last_layer)
        return (muon_step, 1) if is_matrix else (adam_step, 0.003 / 0.02)

    expected = reference(start, gradients, optimizer, schedule, rule_of, lambda name: True)
    # Iterations double rounding errors a few times, because they stretch small singular values.
    np.testing.assert_allclose(vector, expected, rtol=100 * tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
@pytest.mark.parametrize("excluded", [[], ["bias"], ["normalisation"], ["bias", "normalisation"]])
def test_weight_decay_leaves_out_what_is_excluded(name, excluded):
    kinds = {
        "bias": ["conv1.bias", "dense1.bias", "dense2.bias"],
        "normalisation": ["group_norm1.weight", "group_norm1.bias"],
    }
    unchanged = {parameter for kind in excluded for parameter in kinds[kind]}
    start = np.ones(PARAMETERS.size)
    options = {"momentum": 0.0, "nesterov": False} if name in ("sgd", "muon") else {}
    optimizer = Optimizer(name=name, lr=0.5, weight_decay=0.5, weight_decay_exclude=excluded, **options)
    vector, _ = trained(start, np.zeros((1, PARAMETERS.size)), optimizer, Schedule())
    decayed = {name for name, view in PARAMETERS.views(vector).items() if (view < 1).all()}
    assert decayed == {p.name for p in PARAMETERS} - unchanged


def test_adam_and_adamw_make_the_same_bits():
    start, gradients = drawn(5, "float32")
    vectors = [
        trained(start, gradients, Optimizer(name=name, weight_decay=0.1), Schedule())[0] for name in ("adam", "adamw")
    ]
    assert vectors[0].tobytes() == vectors[1].tobytes()


@pytest.mark.parametrize("shape", [(5, 5), (3, 40), (40, 3), (1, 9)])
def test_muon_makes_singular_values_of_about_one(shape):
    matrix = np.random.default_rng(1).standard_normal(shape)
    values = np.linalg.svd(Muon("loops").orthogonalised(matrix), compute_uv=False)
    assert (values > 0.5).all()
    assert (values < 1.5).all()


def test_optimizers_keep_no_more_moments_than_they_need():
    def sizes(**options):
        made = optimizer_of(np.zeros(PARAMETERS.size), Optimizer(**options), parameters=PARAMETERS, last_layer="dense2")
        return made.first_moment.size, made.second_moment.size

    size = PARAMETERS.size
    assert sizes(name="adam") == (size, size)
    assert sizes(name="sgd", momentum=0.9) == (size, 0)
    assert sizes(name="sgd") == (0, 0)
    assert sizes(name="muon") == (size, size)
