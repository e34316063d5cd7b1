import pytest
import torch
from torch import nn

from velatura.training.critics import frozen, r1


def test_r1_of_several_images_is_the_sum_of_their_squared_slopes():
    images = [torch.rand(3, 1, 2, 2), torch.rand(3, 1, 4, 4), torch.rand(3, 1, 1, 1)]
    # The last is not looked at.
    found = r1(lambda a, b, c: (2 * a).sum() + (b**2).sum(), images)
    expected = 4 * 4 + (4 * images[1].square()).sum((1, 2, 3)).mean()
    torch.testing.assert_close(found, expected)
    assert not images[0].requires_grad


def test_frozen_ends_with_an_error_too():
    layer = nn.Linear(1, 1)

    def fail() -> None:
        with frozen(layer):
            assert not layer.weight.requires_grad
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert layer.weight.requires_grad
