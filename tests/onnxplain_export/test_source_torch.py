"""Torch modules and programs are exported as they are in hand, and left as they were."""

import dataclasses
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import small_models
from onnxplain.errors import ModelError
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import Source, read_source

Pair = namedtuple("Pair", ["logits", "hidden"])


@dataclasses.dataclass
class Answer:
    logits: Tensor
    hidden: Tensor
    loss: Tensor | None = None


class Two(nn.Module):
    """A network of two inputs that returns its two outputs in a form of one's choice."""

    def __init__(self, form: Callable[..., Any] = dict) -> None:
        super().__init__()
        self.first, self.dropout, self.last = nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 4)
        self.form = form

    def forward(self, values: Tensor, weights: Tensor | None = None) -> Any:
        hidden = self.dropout(torch.tanh(self.first(values)))
        if weights is not None:
            hidden = hidden * weights
        return self.form(logits=self.last(hidden), hidden=hidden)


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def inputs(source: Source) -> dict[str, list[Any]]:
    return {str(v.name): [a if isinstance(a, int) else "free" for a in v.shape] for v in source.model.graph.inputs}


def outputs(source: Source) -> list[str | None]:
    return [value.name for value in source.model.graph.outputs]


@pytest.mark.parametrize("form", [dict, Answer, Pair], ids=["dict", "dataclass", "namedtuple"])
def test_outputs_have_the_names_that_the_module_gives_them(form: Callable[..., Any]) -> None:
    source = read_source(Two(form), (torch.zeros(3, 6), torch.ones(3, 8)))
    assert outputs(source) == ["logits", "hidden"]
    assert inputs(source) == {"values": ["free", 6], "weights": ["free", 8]}


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (torch.zeros(6)[None], {"values": ["free", 6]}),
        (np.zeros((2, 6), np.float32), {"values": ["free", 6]}),
        ((torch.zeros(2, 6),), {"values": ["free", 6]}),
        ({"weights": torch.ones(2, 8), "values": np.zeros((2, 6), np.float32)}, None),
    ],
    ids=["tensor", "array", "tuple", "by name"],
)
def test_an_example_is_a_batch_or_several(example: Any, expected: dict[str, list[Any]] | None) -> None:
    expected = expected or {"values": ["free", 6], "weights": ["free", 8]}
    assert inputs(read_source(Two(), example)) == expected


@pytest.mark.parametrize("example", [None, (), {}, 3, "cat.jpg", torch.tensor(1.0)])
def test_without_a_batch_the_error_asks_for_one(example: Any) -> None:
    with pytest.raises(ModelError, match=r"needs example=, one input batch such as torch\.zeros\(1, 3, 224, 224\)"):
        read_source(nn.Linear(3, 2), example)


def test_the_module_is_exported_in_evaluation_mode_and_stays_as_it_is() -> None:
    module = Two()
    module.last.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    operators = {node.op_type for node in read_source(module, torch.zeros(1, 6)).model.graph}
    assert "Dropout" not in operators
    assert [part.training for part in module.modules()] == [True, True, True, False]
    assert "forward" not in vars(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_module_that_fails_stays_as_it_is() -> None:
    module = Two(form=lambda **_: {"logits": None})
    with pytest.raises(ModelError):
        read_source(module, torch.zeros(1, 7))
    assert module.training
    assert "forward" not in vars(module)


class Fixed(nn.Module):
    def forward(self, image: Tensor, shift: Tensor) -> Tensor:
        return torch.tanh(image.reshape(1, 12)[:, :5] + shift)


def test_a_batch_that_torch_cannot_free_is_said() -> None:
    source = read_source(Fixed(), (torch.zeros(3, 3, 2, 2), torch.zeros(3, 5)))
    assert inputs(source) == {"image": [1, 3, 2, 2], "shift": [1, 5]}
    assert source.changes[0].startswith("exported with a batch of 1, since torch can't free it: ")
    assert "\n" not in source.changes[0]


def program(free: bool) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("images")
    return torch.export.export(
        Two().eval(), (torch.zeros(2, 6), torch.ones(2, 8)), dynamic_shapes=({0: batch}, {0: batch}) if free else None
    )


@pytest.mark.parametrize("free", [True, False])
def test_an_exported_program_needs_no_example(free: bool) -> None:
    source = read_source(program(free))
    batch = "free" if free else 2
    assert inputs(source) == {"values": [batch, 6], "weights": [batch, 8]}
    assert outputs(source) == ["logits", "hidden"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch about itself
def test_an_onnx_program_is_the_model_that_it_holds() -> None:
    made = torch.onnx.export(program(True), dynamo=True, verbose=False)
    assert made is not None
    assert inputs(read_source(made)) == {"values": ["free", 6], "weights": ["free", 8]}


class Gathering(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, dim=1)


def test_a_forward_of_any_number_of_tensors_has_a_free_batch() -> None:
    source = read_source(Gathering(), (torch.zeros(2, 3), torch.zeros(2, 4)))
    assert list(inputs(source).values()) == [["free", 3], ["free", 4]]


FORMS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "module": lambda module, example: module,
    "compiled": lambda module, example: torch.compile(module),
    "program": lambda module, example: torch.export.export(module, (example,)),
    "scripted": lambda module, example: torch.jit.script(module),
    "traced": lambda module, example: torch.jit.trace(module, example),
    "fx graph": lambda module, example: torch.fx.symbolic_trace(module),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # for as long as people have such modules in hand
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_torchs_gradient(form: str) -> None:
    module, images = convolution().eval(), small_models.images(3, 9, 8)
    found = normalize(read_source(FORMS[form](module, torch.zeros(1, 3, 9, 8)), torch.zeros(1, 3, 9, 8)))
    target = np.array([[0], [3], [1]])
    ours = small_models.run(ir.to_proto(gradient(found)), {found.image: images, "target": target}, "total")[:, 0]
    rows = torch.from_numpy(images).double().requires_grad_()
    module.double()(rows)[range(3), target[:, 0]].sum().backward()
    assert rows.grad is not None
    np.testing.assert_allclose(ours, rows.grad.numpy(), rtol=0, atol=1e-6)
