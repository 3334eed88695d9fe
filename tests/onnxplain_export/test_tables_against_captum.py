"""Backward passes under other rules against Captum on three architectures, images of odd sizes, alone and in a batch.

Captum's hooks sit on modules and on their tensors: a network must have a module for every ReLU and sum, none used
twice. Where an activation is followed by another module with a hook, it reads the first one's tensor too early; the
networks of these tests copy the tensor between them unless that is what is tested.
"""

import copy
import warnings

import numpy as np
import pytest
import torch
from captum.attr import LRP, Deconvolution, DeepLift, GuidedBackprop
from captum.attr._utils.custom_modules import Addition_Module

import table_networks
from networks import randomised
from onnxplain_export.graphs.deeplift import deeplift
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.relevance import relevance
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source
from onnxplain_export.tables import COMPOSITES, DECONVOLUTION, GUIDED
from table_networks import NETWORKS, Copy, images, network, normalized, outputs, relative, targets

TOLERANCE = 1e-5
COUNTS = (1, 7)
pytestmark = pytest.mark.filterwarnings("ignore")  # Captum warns of its own hooks


def captum(method, x: np.ndarray, target: np.ndarray, **options) -> np.ndarray:
    found = method.attribute(torch.tensor(x), target=torch.tensor(target[:, 0]), **options)
    return found.detach().numpy()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rules", "theirs"), [(GUIDED, GuidedBackprop), (DECONVOLUTION, Deconvolution)])
def test_guided_backprop_and_deconvolution(name: str, count: int, rules, theirs) -> None:
    x, target = images(name, count), targets(count)
    found = outputs(gradient(normalized(name), rules), {normalized(name).image: x, "target": target})["total"]
    assert relative(found[:, 0], captum(theirs(network(name)), x, target)) < TOLERANCE


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_epsilon_rule(name: str, count: int) -> None:
    x, target = images(name, count), targets(count)
    model = relevance(normalized(name), COMPOSITES["epsilon"])
    feeds = {normalized(name).image: x, "target": target, "epsilon": np.full(1, 1e-9, np.float32)}
    theirs = network(name)
    if name == "residual":  # the one sum that Captum gives a rule
        theirs = randomised(table_networks.Residual(Addition_Module))
        theirs.load_state_dict(network(name).state_dict())
    # Where a sum is nearly 0, the shares of its parts are large and rounding shows.
    assert relative(outputs(model, feeds)["total"][:, 0], captum(LRP(theirs), x, target)) < 1e-4


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("each", [False, True], ids=["one baseline", "a baseline each"])
def test_deeplift(name: str, count: int, each: bool) -> None:
    x, target = images(name, count), targets(count)
    baseline = images(name, count if each else 1, seed=5)
    feeds = {normalized(name).image: x, "target": target, "baseline": baseline}
    theirs = copy.deepcopy(network(name))
    if name == "plain":
        theirs.copy = Copy()
    given = torch.tensor(np.broadcast_to(baseline, x.shape).copy())
    truth = captum(DeepLift(theirs), x, target, baselines=given)
    assert relative(outputs(deeplift(normalized(name)), feeds)["total"][:, 0], truth) < TOLERANCE


@pytest.mark.parametrize("count", COUNTS)
def test_deeplift_as_captum_has_it_where_a_max_pool_follows_a_relu(count: int) -> None:
    x, target, baseline = images("plain", count), targets(count), images("plain", 1, seed=5)
    feeds = {normalized("plain").image: x, "target": target, "baseline": baseline}
    theirs = network("plain")
    given = torch.tensor(np.broadcast_to(baseline, x.shape).copy())
    truth = captum(DeepLift(theirs), x, target, baselines=given)
    assert relative(outputs(deeplift(normalized("plain"), captum=True), feeds)["total"][:, 0], truth) < TOLERANCE
    ours = outputs(deeplift(normalized("plain")), feeds)["total"][:, 0]
    assert relative(ours, truth) > 0.01
    rise = theirs(torch.tensor(x)) - theirs(given)
    expected = np.take_along_axis(rise.detach().numpy(), target, 1)[:, 0]
    np.testing.assert_allclose(ours.reshape(count, -1).sum(1), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(truth.reshape(count, -1).sum(1) - expected).max() > 1e-3


def test_every_network_is_one_that_hooks_can_follow() -> None:
    """A functional ReLU would pass Captum by, and the comparison would test nothing."""
    for name in NETWORKS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = outputs(gradient(normalized(name)), {normalized(name).image: images(name), "target": targets()})
            theirs = captum(GuidedBackprop(network(name)), images(name), targets())
        assert relative(plain["total"][:, 0], theirs) > 0.1


def test_guided_relus_are_found_where_hooks_pass_them_by() -> None:
    class Functional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = torch.nn.Linear(6, 9), torch.nn.Linear(9, 9), torch.nn.Linear(9, 4)
            self.reused = torch.nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.second(self.reused(self.second(self.reused(self.first(x)))))))

    class GuidedRelu(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, g):
            return g.clamp(min=0) * (ctx.saved_tensors[0] > 0)

    torch.manual_seed(0)
    net = Functional().eval()
    ours = normalize(read_source(net, torch.zeros(1, 6)))
    x, target = table_networks.small_models.images(6, count=5), targets(5) % 4
    found = outputs(gradient(ours, GUIDED), {ours.image: x, "target": target})["total"][:, 0]
    given, relu = torch.tensor(x, requires_grad=True), GuidedRelu.apply
    scores = net.head(relu(net.second(relu(net.second(relu(net.first(given)))))))
    (truth,) = torch.autograd.grad(scores.gather(1, torch.tensor(target)).sum(), given)
    assert relative(found, truth.numpy()) < TOLERANCE
    assert relative(found, captum(GuidedBackprop(net), x, target)) > 0.01
