import numpy as np
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


def test_it_begins_with_principal_components():
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    net = VAE(12, 3, 16, 4, basis=16).eval()
    net.begin(images)
    z = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    spanned = net.decoder(z).detach().flatten(1).numpy()
    flat = images.flatten(1).numpy()
    apart = flat - flat.mean(0)
    nearest = np.linalg.svd(apart, full_matrices=False)[2][:12]  # of all twelve directions they lose least
    np.testing.assert_allclose((spanned - flat.mean(0)) @ nearest.T @ nearest, spanned - flat.mean(0), atol=1e-4)
    # The latents of the images that it began with have mean 0 and variance 1, as the prior has them.
    exact = apart @ net.decoder.basis.flatten(1).pinverse().numpy()
    np.testing.assert_allclose(exact.var(0), 1, rtol=1e-3)


def test_the_basis_is_enlarged_and_does_not_learn():
    net = VAE(4, 1, 32, 4, basis=8)
    net.begin(torch.rand(9, 1, 32, 32))
    made, _ = net(torch.rand(2, 1, 32, 32), torch.zeros(2, 1, 32, 32))
    assert made.shape == (2, 1, 32, 32)
    assert "decoder.basis" in net.state_dict()
    assert "decoder.basis" not in dict(net.named_parameters())


def seeing() -> VAE:
    torch.manual_seed(5)
    net = VAE(8, width=4, seeing=True).eval()
    torch.nn.init.normal_(net.decoder.leave.weight, std=0.1)
    return net


def test_a_seeing_decoder_is_shown_what_is_around_a_hole_only():
    net, image = seeing(), torch.rand(2, 3, 64, 64)
    mask = torch.zeros(2, 1, 64, 64)
    mask[1, :, 16:48, 16:48] = 1
    made, posterior = net(image, mask)
    alone = net.decoder(posterior.mean)
    torch.testing.assert_close(made[0], alone[0])
    assert float((made[1] - alone[1]).detach().abs().mean()) > 1e-3
    # Nothing of what the hole holds is shown.
    other = torch.where(mask > 0, torch.rand_like(image), image)
    torch.testing.assert_close(net(other, mask)[0][1], made[1])


def test_every_weight_of_a_seeing_decoder_learns():
    net = seeing().train()
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., :32] = 1
    made, posterior = net(torch.rand(2, 3, 64, 64), mask, torch.randn(2, 8))
    (made.square().mean() + posterior.divergence().mean()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())
