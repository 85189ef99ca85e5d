"""A configuration with errors is checked as far as its valid values go: all problems are reported at once."""

from __future__ import annotations

import pytest

MANY = """
data: {name: mnist}
network:
  - conv: {filters: 10, kernel: 3, padding: 1}
  - group_norm: {groups: 4}
  - conv: {filters: 8, kernel: 3, groups: 3, padding: 1}
  - residual:
      body:
        - conv: {filters: 16, kernel: 3, stride: 2, padding: 1}
        - residual: {body: [conv: {filters: 12, kernel: 1}]}
  - flatten
  - dense: {units: 9}
training:
  freeze: [conv7, dense1]
  mixup: {alpha: 0.2}
  class_weights: balanced
  augment: {shift: 28}
"""
PROBLEMS_OF_MANY = [
    "training.mixup makes targets of two classes",
    "network.1 (group_norm1): 4 groups do not divide 10 channels",
    "network.2 (conv2): groups: 3 does not divide its 10 input channels and 8 filters",
    "network.3.residual.body.1.residual (residual2): the body gives 12 x 14 x 14, but its input",
    "network.3.residual (residual1): the body gives 12 x 14 x 14, but its input",
    "network.5 (dense1): 9 outputs are too few for the 10 classes",
    "training.freeze: there is no layer conv7; did you mean conv4?",
    "training.augment.shift: 28 rows and 28 columns move an image of 28 x 28 pixels out of sight",
]


def problems(message):
    first, *lines = message.splitlines()
    assert f" {len(lines)} error" in first
    return [line.removeprefix("  ") for line in lines]


def assert_are(found, expected):
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)


def test_errors_of_keys_of_shapes_and_of_names_are_one_report(refusal):
    assert_are(problems(refusal(MANY)), PROBLEMS_OF_MANY)


@pytest.mark.parametrize("wrong", ["seed=-1", "logging.evry_steps=3", "training.epochs=0", "training.mixup.alpha=0"])
def test_an_invalid_value_hides_no_problem_of_the_others(refusal, wrong):
    message = refusal(MANY, wrong)
    for problem in PROBLEMS_OF_MANY:
        assert f"  {problem}" in message
    assert sum(line.startswith("  ") for line in message.splitlines()) == len(PROBLEMS_OF_MANY) + 1


# The changes of a valid configuration, and the errors: no more than these.
NETWORK = """
data: {name: %s}
network: [%s, flatten, dense: {units: 10}]
training: {%s}
"""
BLOCK = "residual: {body: [conv: {filters: 8, kernel: 3, padding: 1}]}"
FOLLOW_UPS = {
    "shapes after a kernel that is too large": (
        ["mnist", "conv: {filters: 8, kernel: 40}, max_pool: {window: 9}, conv: {filters: 8, kernel: 9}", "epochs: 0"],
        ["training.epochs: must be", "network.0 (conv1): the kernel 40 x 40"],
    ),
    "channels after it are known": (
        ["mnist", "conv: {filters: 6, kernel: 40}, group_norm: {groups: 4}", "epochs: 0"],
        ["training.epochs: must be", "network.0 (conv1): the kernel", "network.1 (group_norm1): 4 groups do not"],
    ),
    "shapes after a layer with a misspelt key": (
        ["mnist", f"conv: {{filters: 8, kernel: 5, pading: 2}}, {BLOCK}, max_pool: {{window: 26}}", ""],
        ["network.0.conv.pading: unknown key; did you mean padding?"],
    ),
    "names after an unknown layer": (
        ["mnist", "konv: {filters: 8, kernel: 5}, relu", "freeze: [conv3]"],
        ["network.0: unknown layer 'konv'; did you mean conv?"],
    ),
    "shapes of arrays that were not read": (
        ["arrays, path: a.npz", f"conv: {{filters: 9, kernel: 99, groups: 2}}, {BLOCK}", "freeze: [relu1]"],
        [
            "network.0 (conv1): groups: 2 does not divide its 9 filters; these do: 1, 3, 9",
            "network.1.residual (residual1): the body gives 8 x ? x ?, but its input, which the shortcut passes on,",
            "training.freeze: there is no layer relu1",
        ],
    ),
    "what an invalid value decides": (
        ["mnist", "batch_norm", "tile: no, block: 9, optimizer: {name: muon, nesterov: true, lr: -1}"],
        ["training.tile: must be", "training.optimizer.lr: must be"],
    ),
    "what goes with batch_norm": (
        ["mnist", "conv: {filters: 0, kernel: 3}, batch_norm", "tile: 1, per_example: {clip: 1, statistics: true}"],
        [
            "network.0.conv.filters: must be",
            "training.tile: batch_norm needs",
            "training.per_example.clip needs",
            "training.per_example.statistics needs",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), FOLLOW_UPS.values(), ids=FOLLOW_UPS)
def test_what_is_not_known_is_not_reported(refusal, values, expected):
    message = refusal(NETWORK % tuple(values) + "# an error, so that there is a report\nworkers: {max_restarts: -1}")
    found = [line for line in problems(message) if not line.startswith("workers")]
    assert len(found) == len(expected), message
    for start in expected:
        assert any(problem.startswith(start) for problem in found)


def test_an_error_of_shapes_is_attributed_to_the_override_that_caused_it(refusal):
    message = refusal(MANY, "network.1={group_norm: {groups: 3}}", "training.freeze=[conv9]")
    assert (
        "--set network.1={group_norm: {groups: 3}}: 1 error in the configuration\n  network.1 (group_norm1): 3"
        in message
    )
    assert (
        "--set training.freeze=[conv9]: 1 error in the configuration\n  training.freeze: there is no layer" in message
    )
