import torch

from velatura.nets.vae import VAE


def test_it_learns_to_encode_and_decode():
    torch.manual_seed(0)
    net = VAE(8, 1, 32, 8)
    colors = torch.linspace(0, 1, 16).view(16, 1, 1, 1).expand(16, 1, 32, 32)
    mask = torch.zeros(16, 1, 32, 32)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        made, posterior = net(colors, mask, torch.randn(16, 8))
        losses.append((made - colors).abs().mean())
        optimizer.zero_grad()
        (losses[-1] + 1e-3 * posterior.divergence().mean()).backward()
        optimizer.step()
    assert float(losses[-1].detach()) < 0.5 * float(losses[0].detach())


def test_noise_moves_along_the_posterior():
    net, image, mask = VAE(8, width=4).eval(), torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    noise = torch.randn(2, 8)
    made, posterior = net(image, mask, noise)
    torch.testing.assert_close(made, net.decoder(posterior.sample(noise)))
    assert torch.equal(net(image, mask, torch.zeros(2, 8))[0], net(image, mask)[0])


def test_every_weight_learns():
    net = VAE(8, width=4)
    made, posterior = net(torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64), torch.randn(2, 8))
    (made.square().mean() + posterior.divergence().mean()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())
