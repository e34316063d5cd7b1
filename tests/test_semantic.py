"""Batches of small images: what is known stays, what the batch is does not matter."""

import numpy as np
import pytest
import torch
from inpainters import save_gan, save_vae

from velatura.errors import InputError, ModelError
from velatura.latent_search import Search, context_loss, context_weights
from velatura.nets.dcgan import Generator
from velatura.nets.vae import VAE
from velatura.ops import masks
from velatura.semantic import DEFAULTS, Model, fill, join, load_model

FEW = Search(steps=3)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return load_model(save_vae(tmp_path_factory.mktemp("vae")))


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    return load_model(save_gan(tmp_path_factory.mktemp("gan")))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    holes = [masks.centre_square(64, 64), masks.half(64, 64, "left"), masks.random_pixels(64, 64, rng)]
    return images, torch.from_numpy(np.stack(holes))[:, None]


def test_known_pixels_stay_and_the_hole_is_never_read(vae, batch):
    images, holes = batch
    found = fill(vae, images, holes, options=FEW)
    assert found.images.shape == (3, 1, 3, 64, 64)
    known = (holes == 0).expand_as(images)
    assert torch.equal(found.images[:, 0][known], images[known])
    assert not torch.equal(found.images[:, 0], images)
    assert 0 <= found.images.min() <= found.images.max() <= 1
    other = fill(vae, torch.where(known, images, 1 - images), holes, options=FEW)
    assert torch.equal(other.images[:, 0][~known], found.images[:, 0][~known])


@pytest.mark.parametrize(("candidates", "mirror"), [(1, False), (1, True), (3, True)])
def test_alone_and_in_a_batch_alike(vae, batch, candidates, mirror):
    images, holes = batch
    options = {"options": FEW, "candidates": candidates, "mirror": mirror}
    together = fill(vae, images, holes, **options).images
    alone = torch.cat([fill(vae, images[i : i + 1], holes[i : i + 1], **options).images for i in range(3)])
    assert torch.equal(together, alone)
    grouped = fill(vae, images, holes, group=3, **options).images
    assert (grouped - alone).abs().max() < 0.1  # the last bits of a float, made larger by the search


def test_the_seed_does_not_matter_for_one_candidate_of_the_encoder(vae, batch):
    first, second = (fill(vae, *batch, options=FEW, seed=seed).images for seed in (0, 1))
    assert torch.equal(first, second)


def test_candidates_differ_and_the_best_comes_first(vae, batch):
    images, holes = batch
    found = fill(vae, images, holes, options=Search(0), candidates=4)
    assert bool((found.losses.diff(dim=1) >= 0).all())
    for i in range(3):
        apart = (found.made[i, :, None] - found.made[i]).abs().amax((2, 3, 4))
        assert (apart + torch.eye(4)).min() > 1e-3
    # What they are ranked by, said in the paper's words.
    weights = context_weights(holes, 7)
    loss = context_loss(found.made[:, 0], images, weights) + 0.003 * found.z[:, 0].square().mean(1)
    assert torch.allclose(loss, found.losses[:, 0], atol=1e-5)
    mean = fill(vae, images, holes, options=Search(0)).z
    assert all((found.z[i] == mean[i]).all(1).any() for i in range(3))


def test_with_its_mirror_image_a_picture_is_filled_as_its_mirror_image_is(vae, batch):
    images, holes = batch
    one = fill(vae, images, holes, options=Search(0), candidates=3, mirror=True)
    other = fill(vae, images.flip(-1), holes.flip(-1), options=Search(0), mirror=True)
    plain, turned = (fill(vae, *sides, options=Search(0)).made for sides in (batch, [x.flip(-1) for x in batch]))
    assert torch.allclose(other.made, ((plain + turned.flip(-1)) / 2).flip(-1), atol=1e-5)
    for i in range(3):  # one of three candidates is the mean, the others are samples
        assert int(((one.made[i] - other.made[i].flip(-1)).abs().amax((1, 2, 3)) < 1e-5).sum()) == 1


def test_the_encoder_begins_where_it_says(vae, batch):
    images, holes = batch
    found = fill(vae, images[:1], holes[:1], options=Search(0))
    assert vae.encoder is not None
    assert torch.equal(found.z[0], vae.encoder(images[:1], holes[:1]).mean)
    assert DEFAULTS["encoder"].steps < DEFAULTS["latent"].steps / 40


def test_the_papers_search_begins_at_random(gan, batch):
    images, holes = batch
    options = Search(8, rate=0.1)
    first, same, other = (fill(gan, images, holes, method="latent", options=options, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.z, same.z)
    assert not torch.equal(first.z, other.z)
    assert first.losses.mean() < fill(gan, images, holes, method="latent", options=Search(0)).losses.mean()


def test_a_gan_has_its_encoder_and_critic_beside_it(gan, batch):
    assert gan.encoder is not None
    assert gan.critic is not None
    images, holes = batch
    asked = fill(gan, images, holes, options=Search(2, prior=1.0)).losses
    alone = Model("alone", gan.generator, gan.encoder)
    assert not torch.equal(asked, fill(alone, images, holes, options=Search(2, prior=1.0)).losses)


def test_latents_of_a_uniform_prior_stay_in_it(batch):
    torch.manual_seed(0)
    model = Model("uniform", Generator(latent=8, width=4, prior="uniform").eval().requires_grad_(False))
    found = fill(model, *batch, method="latent", options=Search(30, rate=0.5))
    assert found.z.abs().max() <= 1


@pytest.mark.parametrize("steps", [0, 2])
def test_latents_are_bounded_from_the_start(vae, batch, steps):
    free, bound = (fill(vae, *batch, options=Search(steps, bound=bound)).z.abs().max() for bound in (4.0, 0.01))
    assert bound <= 0.01 < free


def test_any_seed_will_do(vae, batch):
    many = [fill(vae, *batch, options=Search(0), candidates=2, seed=seed).z for seed in (1, 2**63 + 1, 10**25)]
    assert torch.equal(many[0], many[1])
    assert not torch.equal(many[0], many[2])


def test_lbfgs_goes_image_by_image(vae, batch):
    images, holes = batch
    options = Search(3, "lbfgs", rate=0.5)
    together = fill(vae, images, holes, options=options).z
    assert torch.equal(together[1:2], fill(vae, images[1:2], holes[1:2], options=options).z)


def test_what_does_not_fit_is_refused(vae, gan, batch, tmp_path):
    images, holes = batch
    with pytest.raises(InputError, match=r"got images \(3, 1, 64, 64\).*takes \(N, 3, 64, 64\)"):
        fill(vae, images[:, :1], holes)
    with pytest.raises(ModelError, match=r"mine has no encoder that was trained with holes .*--method latent"):
        fill(Model("mine", gan.generator), images, holes)
    plain = load_model(save_vae(tmp_path, "plain", masked=0))
    with pytest.raises(ModelError, match="plain has no encoder that was trained with holes"):
        fill(plain, images, holes)
    path = save_gan(tmp_path, "other", channels=1)
    with pytest.raises(ModelError, match=r"other-encoder is for .* \(8, 3, 64\), other has \(8, 1, 64\)"):
        load_model(path)
    with pytest.raises(ModelError, match="holds a MaskedEncoder; expected VAE or Generator"):
        load_model(path.with_name("other-encoder.safetensors"))


def test_joined_gradients_are_the_generators():
    made, image = torch.rand(2, 3, 16, 16), torch.rand(3, 16, 16)
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 4:12] = 1
    made = 0.4 + 0.1 * made  # so that nothing is cut off
    image = 0.4 + 0.1 * image
    joined = join(made, image, mask)

    def laplacian(x):
        return 4 * x[..., 1:-1, 1:-1] - x[..., 2:, 1:-1] - x[..., :-2, 1:-1] - x[..., 1:-1, 2:] - x[..., 1:-1, :-2]

    inside = mask[0, 1:-1, 1:-1] > 0
    assert (laplacian(joined) - laplacian(made))[..., inside].abs().max() < 0.01
    assert torch.equal(joined[:, :, mask[0] == 0], image.expand(2, -1, -1, -1)[:, :, mask[0] == 0])


def test_it_can_be_stopped(vae, batch):
    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(vae, *batch, tick=stop)


def test_a_vae_may_be_given_without_a_file(batch):
    torch.manual_seed(0)
    net = VAE(latent=8, width=4).eval().requires_grad_(False)
    assert fill(Model("mine", net.decoder, net.encoder), *batch, options=Search(0)).images.shape == (3, 1, 3, 64, 64)


def test_a_seeing_vae_is_shown_the_known_pixels_in_every_candidate(batch):
    images, holes = batch
    torch.manual_seed(3)
    vae = VAE(latent=8, width=4, seeing=True).eval().requires_grad_(False)
    model = Model("mine", vae.decoder, vae.encoder)
    found = fill(model, images[:2], holes[:2], options=Search(steps=0), candidates=2)
    expected, posterior = vae(images[:2], holes[:2])
    likeliest = (found.z - posterior.mean[:, None]).abs().amax(2).argmin(1)
    torch.testing.assert_close(found.made[[0, 1], likeliest], expected, rtol=0, atol=1e-4)
    # The paper's search has the latents alone.
    plain = fill(model, images[:1], holes[:1], method="latent", options=Search(steps=1))
    torch.testing.assert_close(plain.made[:, 0], vae.decoder(plain.z[:, 0]), rtol=0, atol=1e-4)
