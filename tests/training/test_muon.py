import pytest
import torch
from torch import nn

from velatura.nets.srresnet import SRResNet
from velatura.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (20, 20)])
def test_orthogonal_keeps_directions_and_levels_sizes(shape):
    """Against the nearest orthogonal matrix, by singular values."""
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found, exact = orthogonal(matrix), u @ v
    cosine = (found * exact).sum() / found.norm() / exact.norm()
    assert cosine > 0.97
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3
    assert values[: min(shape) - 2].min() > 0.6  # a value near 0 needs more steps
    torch.testing.assert_close(orthogonal(1000 * matrix), found, atol=1e-4, rtol=1e-3)


def parameters(network, optimizer):
    """Names by kind."""
    names = {id(p): name for name, p in network.named_parameters()}
    return {
        group["matrices"]: {names[id(p)] for p in group["params"]} for group in optimizer.param_groups
    }  # fmt: skip


def test_inner_convolutions_are_turned_and_the_rest_is_adams():
    network = SRResNet(width=8, blocks=2)
    kinds = parameters(network, Muon(network, plain=(network.head, network.tail)))
    assert {"blocks.0.0.weight", "merge.0.weight", "up.0.0.weight"} <= kinds[True]
    assert all(name.endswith("weight") for name in kinds[True])
    assert {"head.0.weight", "tail.weight", "blocks.0.0.bias", "blocks.0.1.weight"} <= kinds[False]
    assert not kinds[True] & kinds[False]
    assert kinds[True] | kinds[False] == {name for name, _ in network.named_parameters()}


def test_what_is_adams_moves_as_by_adam():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    muon, adam = Muon(ours, adam_lr=0.01, plain=(ours,)), torch.optim.Adam(theirs.parameters(), lr=0.01)
    for _ in range(5):
        x = torch.randn(4, 3)
        for network, optimizer in ((ours, muon), (theirs, adam)):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_step_is_as_long_in_all_directions_whatever_the_gradient():
    layer = nn.Linear(12, 6, bias=False)
    optimizer = Muon(layer, lr=0.1, decay=0.0)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(6, 12) * 1e-6
    optimizer.step()
    values = torch.linalg.svdvals((before - layer.weight).detach())
    assert values.max() < 0.13
    assert values.min() > 0.05


def test_matrices_decay_and_biases_do_not():
    layer = nn.Linear(4, 4)
    optimizer = Muon(layer, lr=0.1, decay=0.5)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.zeros(4, 4), torch.zeros(4)
    optimizer.step()
    torch.testing.assert_close(layer.weight, weight * (1 - 0.1 * 0.5), atol=1e-6, rtol=0)
    assert torch.equal(layer.bias, bias)


def test_it_learns_and_goes_on_from_its_state():
    def run(steps, resume_at=None):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.PReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten())
        optimizer = Muon(network, lr=0.02, plain=(network[0],))
        x = torch.randn(4, 1, 5, 5)
        goal = torch.randn(4, 200)
        losses = []
        for step in range(steps):
            if step == resume_at:
                state = optimizer.state_dict()
                optimizer = Muon(network, lr=0.5, plain=(network[0],))
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            loss = (network(x) - goal).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        return losses

    losses = run(30)
    assert losses[-1] < 0.9 * losses[0]
    assert run(30, resume_at=10) == losses


def test_without_a_gradient_nothing_happens():
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    Muon(layer).step()
    assert torch.equal(layer.weight, before)
