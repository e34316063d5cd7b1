import torch

from velatura.nets.fading import FadingEstimator
from velatura.ops.degrade import UNFADED
from velatura.ops.fading import COUNT, from_numbers


def ready(gate):
    torch.manual_seed(0)
    net = FadingEstimator(8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 1)
        net.layers[-1].weight[10], net.straight.weight[10], net.straight.bias[10] = 0, 0, 0
        net.layers[-1].bias[10] = gate
    return net.eval().requires_grad_(False)


def test_numbers_stay_a_fading_whatever_the_statistics():
    numbers = ready(9.0)(1e4 * torch.randn(200, COUNT))
    assert numbers.isfinite().all()
    assert (numbers[:, 3:6] - numbers[:, :3]).min() > 0.2  # white stays over black
    assert numbers.std(0).min() > 0.01


def test_a_shut_gate_is_unfaded_to_the_last_bit():
    numbers = ready(-9.0)(torch.randn(20, COUNT))
    assert all(from_numbers(one.double().numpy()) == UNFADED for one in numbers)


def test_an_open_gate_follows_the_statistics():
    net = ready(0.0)
    half, whole = net(torch.ones(1, COUNT)), ready(9.0)(torch.ones(1, COUNT))
    torch.testing.assert_close(half - net.unfaded, (whole - net.unfaded) / 2)


def test_statistics_are_measured_from_their_mean():
    net = ready(9.0)
    seen = torch.randn(3, COUNT)
    expected = net(seen)
    net.mean.fill_(5)
    net.deviation.fill_(2)
    torch.testing.assert_close(net(2 * seen + 5), expected)
