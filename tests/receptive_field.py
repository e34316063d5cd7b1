"""What a fully convolutional network sees, by its gradient."""

import torch


def seen(net):
    """Give the rows and columns of the input that one pixel's place in the output depends on, from that pixel.

    Every weight is made positive, so that nothing cancels.
    """
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.02, 0.1)
    side = 2 * net.receptive_radius + 5
    image = (1 + torch.rand(1, 3, side, side, dtype=torch.float64)).requires_grad_()  # no ReLU is closed
    middle = side // 2
    place = slice(net.scale * middle, net.scale * (middle + 1))
    output = net.double()(image)[:, :, place, place]
    (output * torch.rand_like(output)).sum().backward()
    where = image.grad.abs().sum((0, 1)).nonzero() - middle
    return where.amin(0).tolist(), where.amax(0).tolist()
