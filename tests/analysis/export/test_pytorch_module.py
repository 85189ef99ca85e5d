from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import safetensors.numpy

from partrain.analysis.export import pytorch_layers
from partrain.analysis.export.formats import export_run
from partrain.analysis.prediction import Classifier
from partrain.analysis.trained_run import load_trained_run
from partrain.network import layers
from tests.program import Result
from tests.saved_runs import CLASS_NAMES, NETWORK, NORMALISATION, write_saved_run

# Whose constructor is longer than a line.
WIDE: tuple[Any, ...] = (
    {"conv": {"filters": 100, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 2]}},
    "relu",
    {"dropout": {"rate": 0.25}},
    "flatten",
    {"dense": {"units": 3}},
)
SMALL: dict[str, Any] = {"filters": 4, "kernel": 3, "padding": 1}
RESIDUAL: tuple[Any, ...] = (
    {"conv": SMALL | {"bias": False}},
    "relu",
    {"residual": {"body": [{"conv": SMALL}, "relu", {"conv": SMALL | {"groups": 2}}]}},
    "relu",
    {
        "residual": {
            "body": [
                {"conv": SMALL | {"dilation": 2, "padding": 2}},
                {"residual": {"body": ["relu", {"conv": SMALL}]}},
            ],
            "shortcut": [
                {"conv": SMALL | {"kernel": 1, "padding": 0}},
                {"avg_pool": {"window": 3, "stride": 1, "padding": 1}},
            ],
        }
    },
    {"max_pool": {"window": 3, "stride": 2, "padding": 1}},
    "global_avg_pool",
    "flatten",
    {"dense": {"units": 3}},
)
NORMALISED: tuple[Any, ...] = (
    {"conv": SMALL | {"bias": False}},
    {"batch_norm": {"momentum": 0.2, "eps": 1e-3}},
    "relu",
    {
        "residual": {
            "body": [{"conv": SMALL}, "batch_norm", "relu", {"conv": SMALL}, {"group_norm": {"groups": 2}}],
            "shortcut": [{"conv": SMALL}, "layer_norm"],
        }
    },
    "relu",
    "flatten",
    {"dense": {"units": 7}},
    "batch_norm",
    "relu",
    {"dense": {"units": 6}},
    "layer_norm",
    {"dense": {"units": 3}},
)
ACTIVATIONS: tuple[Any, ...] = (
    {"conv": SMALL},
    "leaky_relu",
    {"conv": SMALL},
    {"leaky_relu": {"slope": 0.2}},
    {"conv": SMALL},
    "gelu",
    {"conv": SMALL},
    {"gelu": {"approximate": "tanh"}},
    {"conv": SMALL},
    "silu",
    "flatten",
    {"dense": {"units": 5}},
    "tanh",
    {"dense": {"units": 3}},
    "sigmoid",
)
NETWORKS = {"plain": NETWORK, "wide": WIDE, "residual": RESIDUAL, "normalised": NORMALISED, "activations": ACTIVATIONS}


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Write a run with this network, export it, and return the file of the module."""

    def write(network: Sequence[Any] = NETWORK, **options: Any) -> Path:
        write_saved_run(tmp_path / "run", network, **options)
        return export_run(tmp_path / "run", tmp_path / "model.py", "py", say=str, warn=pytest.fail)

    return write


def constants(code: str) -> dict[str, Any]:
    """Return the values that the module assigns to names in capitals."""
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name != "WEIGHTS":
                found[name] = ast.literal_eval(node.value)
    return found


def function(code: str, name: str) -> list[str]:
    """Return the statements of a function of the module."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef) and node.name == name]
    return [ast.unparse(statement) for statement in nodes[0].body]


def test_module_computes_the_layers_in_their_order_under_their_names(export: Callable[..., Path]) -> None:
    code = export().read_text()
    assert function(code, "__init__")[3:] == [
        "self.conv1 = nn.Conv2d(2, 3, kernel_size=(3, 2), stride=(2, 1), padding=(1, 2))",
        "self.conv2 = nn.Conv2d(3, 4, kernel_size=2, padding=1)",
        "self.dense1 = nn.Linear(36, 7)",
        "self.dense2 = nn.Linear(7, 3)",
    ]
    assert function(code, "forward") == [
        "x = (pixels - self.mean) / self.std",
        "x = F.relu(self.conv1(x))",
        "x = F.max_pool2d(x, 3, stride=2)",
        "x = self.conv2(x)",
        "x = F.relu(F.max_pool2d(x, (2, 3), stride=(1, 2)))",
        "x = torch.flatten(x, 1)",
        "x = F.relu(self.dense1(x))",
        "return self.dense2(x)",
    ]


def test_groups_dilation_bias_and_pooling_are_those_of_pytorch(export: Callable[..., Path]) -> None:
    network = [
        {"conv": {"filters": 4, "kernel": 3, "groups": 2, "dilation": [1, 2], "bias": False, "padding": 2}},
        {"max_pool": {"window": 3, "stride": 2, "padding": 1}},
        {"avg_pool": {"window": 2, "padding": [1, 0]}},
        "global_avg_pool",
        {"dense": {"units": 3}},
    ]
    code = export(network).read_text()
    assert function(code, "__init__")[3:] == [
        "self.conv1 = nn.Conv2d(2, 4, kernel_size=3, padding=2, dilation=(1, 2), groups=2, bias=False)",
        "self.dense1 = nn.Linear(4, 3)",
    ]
    assert function(code, "forward")[1:] == [
        "x = self.conv1(x)",
        "x = F.max_pool2d(x, 3, stride=2, padding=1)",
        "x = F.avg_pool2d(x, 2, padding=(1, 0))",
        "x = F.adaptive_avg_pool2d(x, 1)",
        "x = torch.flatten(x, 1)",
        "return self.dense1(x)",
    ]


def test_residual_layers_are_sums_with_a_shortcut(export: Callable[..., Path]) -> None:
    assert function(export(RESIDUAL).read_text(), "forward")[1:] == [
        "x = F.relu(self.conv1(x))",
        "shortcut = x",
        "x = F.relu(self.conv2(x))",
        "x = self.conv3(x)",
        "x = F.relu(x + shortcut)",
        "shortcut = self.conv6(x)",
        "shortcut = F.avg_pool2d(shortcut, 3, stride=1, padding=1)",
        "x = self.conv4(x)",
        "shortcut2 = x",
        "x = F.relu(x)",
        "x = self.conv5(x)",
        "x = x + shortcut2",
        "x = x + shortcut",
        "x = F.max_pool2d(x, 3, stride=2, padding=1)",
        "x = F.adaptive_avg_pool2d(x, 1)",
        "x = torch.flatten(x, 1)",
        "return self.dense1(x)",
    ]


def test_normalisations_share_the_line_of_their_input(export: Callable[..., Path]) -> None:
    code = export(NORMALISED).read_text()
    norms = [line.removeprefix("self.") for line in function(code, "__init__") if "_norm" in line]
    assert sorted(norms) == [
        "batch_norm1 = nn.BatchNorm2d(4, eps=0.001, momentum=0.2)",
        "batch_norm2 = nn.BatchNorm2d(4)",
        "batch_norm3 = nn.BatchNorm1d(7)",
        "group_norm1 = nn.GroupNorm(2, 4)",
        "layer_norm1 = nn.LayerNorm((4, 13, 11))",
        "layer_norm2 = nn.LayerNorm(6)",
    ]
    assert function(code, "forward")[1:] == [
        "x = F.relu(self.batch_norm1(self.conv1(x)))",
        "shortcut = self.layer_norm1(self.conv4(x))",
        "x = F.relu(self.batch_norm2(self.conv2(x)))",
        "x = self.group_norm1(self.conv3(x))",
        "x = F.relu(x + shortcut)",
        "x = torch.flatten(x, 1)",
        "x = F.relu(self.batch_norm3(self.dense1(x)))",
        "x = self.layer_norm2(self.dense2(x))",
        "return self.dense3(x)",
    ]


def test_activations_are_written_around_their_input(export: Callable[..., Path]) -> None:
    assert function(export(ACTIVATIONS).read_text(), "forward")[1:] == [
        "x = F.leaky_relu(self.conv1(x))",
        "x = F.leaky_relu(self.conv2(x), negative_slope=0.2)",
        "x = F.gelu(self.conv3(x))",
        "x = F.gelu(self.conv4(x), approximate='tanh')",
        "x = F.silu(self.conv5(x))",
        "x = torch.flatten(x, 1)",
        "x = torch.tanh(self.dense1(x))",
        "return torch.sigmoid(self.dense2(x))",
    ]


def test_every_kind_of_layer_can_be_exported() -> None:
    kinds = {kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, layers.Layer)}
    assert {kind for kind in kinds if not kind.__subclasses__()} - {layers.Residual} == pytorch_layers.KINDS


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_parameters_beside_the_module_are_those_of_its_layers(
    export: Callable[..., Path], network: Sequence[Any]
) -> None:
    path = export(network)
    names = {line.partition(" = ")[0].removeprefix("self.") for line in function(path.read_text(), "__init__")[3:]}
    tensors = safetensors.numpy.load_file(path.with_suffix(".safetensors"))
    assert {name.rpartition(".")[0] for name in tensors} == names - {"dropout1"}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 30), (2, 9, 9)], ids=["grey", "rgb", "two-channels"])
@pytest.mark.parametrize(
    "network",
    [WIDE, RESIDUAL, ACTIVATIONS, ["flatten", {"dense": {"units": 60}}]],
    ids=["wide", "residual", "activations", "classes"],
)
def test_code_is_formatted_and_has_no_lint(
    export: Callable[..., Path], network: Sequence[Any], shape: tuple[int, int, int]
) -> None:
    path = export(network, shape=shape)
    for words in (["format", "--check"], ["check", "--select", "E,F,I,B,UP,RUF,SIM,C4,RET,PTH"]):
        ended = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "--isolated", path], capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout


def test_module_has_normalisation_and_class_names_whatever_characters_they_have(export: Callable[..., Path]) -> None:
    found = constants(export().read_text())
    assert found == {
        "CLASS_NAMES": CLASS_NAMES,
        "MEAN": tuple(NORMALISATION["mean"]),
        "STD": tuple(NORMALISATION["std"]),
    }


def test_strange_names_are_literals_and_not_code(export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ('"""', "it's", 'it\'s "so"', "\\", '\\"', "a\nb\u202e\x07", "{E}", "'")
    monkeypatch.setattr("tests.saved_runs.CLASS_NAMES", names)
    code = export(["flatten", {"dense": {"units": 8}}]).read_text()
    assert constants(code)["CLASS_NAMES"] == names
    assert "\u202e" not in code


def test_module_says_how_it_is_used_if_it_takes_no_image_files(export: Callable[..., Path]) -> None:
    code = export(image_dtype="float32").read_text()
    assert "IMAGE" not in code
    assert "float32 images (N, 2, 13, 11)" in code


def test_message_names_both_files_and_stdout_the_module(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_saved_run(Path("runs/run"))
    result = call_partrain("export", "run", "--to", "nets/my_net.py")
    assert (result.exit_code, result.stdout) == (0, "nets/my_net.py\n")
    assert "374 parameters after step 2, 2,208 bytes of safetensors in nets/my_net.safetensors\n" in result.stderr
    assert 'with_name("my_net.safetensors")' in Path("nets/my_net.py").read_text()


def test_parameters_that_cannot_be_written_leave_no_module(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_saved_run(Path("runs/run"))
    Path("model.safetensors").mkdir()
    assert "is a directory" in call_partrain("export", "run", "--to", "model.py").refusal
    assert not Path("model.py").exists()


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_pytorch_computes_the_same_probabilities(export: Callable[..., Path], network: Sequence[Any]) -> None:
    torch = pytest.importorskip("torch")
    path = export(network)
    module: dict[str, Any] = {"__file__": str(path), "__name__": "model"}
    exec(compile(path.read_text(), path, "exec"), module)
    trained = load_trained_run(path.parent / "run", "last", pytest.fail)
    images = np.random.Generator(np.random.Philox(1)).integers(0, 256, (6, 2, 13, 11), np.uint8)
    expected = Classifier(trained, str, pytest.fail).probabilities(images)
    model = module["load_model"]()
    with torch.no_grad():
        found = model(torch.from_numpy(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "said"),
    [(FileNotFoundError(2, "No such file or directory"), "No such file or directory"), (OSError(), "not an image")],
)
def test_image_that_cannot_be_read_is_one_message_and_exit_code_2(
    export: Callable[..., Path], capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def read_image(path: str) -> NoReturn:
        raise error

    tree = ast.parse(export(shape=(1, 28, 28)).read_text())
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    names: dict[str, Any] = {"sys": sys, "load_model": lambda: None, "read_image": read_image}
    exec(compile(ast.Module([main], []), "model.py", "exec"), names)
    with pytest.raises(SystemExit) as ended:
        names["main"](["digit.png"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"digit.png: {said}\n"
