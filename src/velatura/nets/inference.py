"""What may be changed in a trained network so that it runs faster and gives the same."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["before_shuffle", "for_inference"]

Net = TypeVar("Net", bound=nn.Module)


def for_inference(network: Net, half: torch.dtype | None = None) -> Net:
    """Make a copy of a network that runs faster, for `velatura.nets.rows.Bands`.

    Its ``fold()``, if it has one, merges layers. A PReLU of one slope becomes a LeakyReLU, which is a third cheaper.
    Convolutions, but those in layers that ``full_precision`` names, get weights of the type ``half``; what is between
    them stays float32 where the network adds to it. The memory order becomes channels-last.

    Parameters
    ----------
    network : nn.Module
        In ``eval()``, without gradients.
    half : torch.dtype, optional
        What the device computes natively, see `velatura.device.half_precision`; None leaves float32.

    Returns
    -------
    nn.Module
        The copy; ``network`` stays as it is. Send it images by `velatura.nets.rows.in_bands` alone: called as it is,
        it would meet tensors of two types.

    Examples
    --------
    >>> net = for_inference(nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU()).requires_grad_(False), torch.bfloat16)
    >>> net[0].weight.dtype, net[1]
    (torch.bfloat16, LeakyReLU(negative_slope=0.25, inplace=True))
    """
    network = copy.deepcopy(network)
    if hasattr(network, "fold"):
        network.fold()  # pyright: ignore[reportCallIssue]
    full = {network.get_submodule(name) for name in getattr(network, "full_precision", ())}
    full = {module for one in full for module in one.modules()}
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.PReLU) and child.num_parameters == 1:
                setattr(module, name, nn.LeakyReLU(float(child.weight), inplace=True))
    if half is not None:
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module not in full:
                module.to(half)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def before_shuffle(convolution: nn.Conv2d, factor: int) -> nn.Conv2d:
    """Move a convolution from behind a pixel shuffle to before it.

    Few output channels at the large size waste most of a processor's lanes; `factor` squared times as many at the
    small size do not.

    Parameters
    ----------
    convolution : nn.Conv2d
        (C -> D) of an odd size k, stride 1, padded with k // 2 zeros.
    factor : int
        Of the pixel shuffle.

    Returns
    -------
    nn.Conv2d
        (factor^2 C -> factor^2 D); a pixel shuffle behind it gives what ``convolution`` gives behind the shuffle.

    Examples
    --------
    >>> behind, shuffle, x = nn.Conv2d(2, 3, 9, padding=4), nn.PixelShuffle(2), torch.rand(1, 8, 6, 7)
    >>> torch.allclose(shuffle(before_shuffle(behind, 2)(x)), behind(shuffle(x)), atol=1e-6)
    True
    """
    weight = convolution.weight
    outputs, inputs, size, _ = weight.shape
    reach = size // 2
    far = -(-reach // factor)  # in small pixels
    # Output phase p looks from its pixel at p + t - reach, which is phase (p + t - reach) mod f of a small pixel.
    taps = torch.arange(size)
    spread = torch.zeros(factor, 2 * far + 1, factor, size)
    for phase in range(factor):
        position = phase + taps - reach
        spread[phase, torch.div(position, factor, rounding_mode="floor") + far, position % factor, taps] = 1
    spread = spread.to(weight)
    folded = torch.einsum("pyrt,qxsu,dctu->dpqcrsyx", spread, spread, weight)
    small = nn.Conv2d(
        inputs * factor**2, outputs * factor**2, 2 * far + 1, padding=far, bias=convolution.bias is not None
    )
    small.weight = nn.Parameter(folded.reshape(small.weight.shape), requires_grad=False)
    if convolution.bias is not None:
        bias: Tensor = convolution.bias.repeat_interleave(factor**2)
        small.bias = nn.Parameter(bias, requires_grad=False)
    return small.to(weight.device)
