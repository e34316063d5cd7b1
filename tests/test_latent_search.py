import pytest
import torch
from torch import nn

from velatura.latent_search import Search, context_loss, context_weights, search


class Linear(nn.Module):
    """A generator with one right answer."""

    def __init__(self, latent=4, size=8):
        super().__init__()
        torch.manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(size * size, latent) / 8, requires_grad=False)
        self.size = size

    def forward(self, z):
        return (0.5 + z @ self.matrix.T).view(len(z), 1, self.size, self.size)


@pytest.fixture
def task():
    generator = Linear()
    truth = torch.tensor([[0.5, -1.0, 0.25, 1.5], [-0.5, 0.2, 1.0, 0.0]])
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1
    return generator, truth, generator(truth), mask


def test_weights_count_what_is_missing_around():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1
    weights = context_weights(mask, 3)[0, 0]
    assert weights[4, 4] == 0
    assert torch.allclose(weights[3:6, 3:6][torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])], torch.tensor(1 / 8))
    assert weights[:3].sum() == 0


def test_weights_at_the_border_count_what_is_there():
    mask = torch.zeros(1, 1, 5, 5)
    mask[..., 1] = 1  # the second column
    assert torch.allclose(context_weights(mask, 3)[0, 0, 0, 0], torch.tensor(2 / 3))


def test_without_a_hole_every_pixel_counts():
    assert torch.equal(context_weights(torch.zeros(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("window", [1, 4])
def test_odd_windows_only(window):
    with pytest.raises(ValueError, match=f"got window {window}"):
        context_weights(torch.zeros(1, 1, 4, 4), window)


def test_the_hole_is_never_read(task):
    _, _, image, mask = task
    weights = context_weights(mask, 3)
    other = image + mask
    assert torch.equal(context_loss(image, other, weights), torch.zeros(2))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_loss_is_a_weighted_mean(norm, task):
    _, _, image, mask = task
    loss = context_loss(image + 0.5, image, context_weights(mask, 3), norm)
    assert torch.allclose(loss, torch.tensor(0.5 if norm == "l1" else 0.25))


@pytest.mark.parametrize(
    "options", [Search(400, rate=0.05, prior=0), Search(60, "lbfgs", rate=1.0, norm="l2", prior=0)]
)
def test_it_finds_the_latents(task, options):
    generator, truth, image, mask = task
    found = search(generator, image * (1 - mask), mask, torch.zeros(2, 4), options)
    assert (found.z - truth).abs().max() < 0.05
    assert torch.equal(found.image, generator(found.z))
    assert found.context.max() < 0.01


def test_each_image_is_searched_for_itself(task):
    generator, _, image, mask = task
    options = Search(20, prior=0.1)
    both = search(generator, image, mask, torch.zeros(2, 4), options)
    for i in range(2):
        alone = search(generator, image[i : i + 1], mask[i : i + 1], torch.zeros(1, 4), options)
        torch.testing.assert_close(alone.z, both.z[i : i + 1])


def test_steps_may_be_computed_in_half_precision(task):
    generator, truth, image, mask = task
    seen = []

    class Watched(nn.Module):
        def forward(self, z):
            made = generator(z)
            seen.append(made.dtype)
            return made

    found = search(Watched(), image, mask, torch.zeros(2, 4), Search(300, prior=0), half=torch.bfloat16)
    assert seen.count(torch.bfloat16) == 300
    assert found.image.dtype == found.context.dtype == torch.float32
    assert (found.z - truth).abs().max() < 0.1


def test_the_best_step_counts_not_the_last(task):
    generator, truth, image, mask = task
    found = search(generator, image, mask, truth, Search(5, rate=10.0, prior=0))
    assert torch.equal(found.z, truth)


def test_the_bound_holds(task):
    generator, _, image, mask = task
    found = search(generator, image, mask, torch.zeros(2, 4), Search(200, rate=0.1, prior=0, bound=0.4))
    assert found.z.abs().max() <= 0.4


def test_the_prior_draws_to_the_middle_or_to_what_the_critic_likes(task):
    generator, truth, image, mask = task
    near = search(generator, image, mask, truth, Search(300, prior=1.0))
    assert near.z.abs().mean() < 0.5 * truth.abs().mean()

    class Bright(nn.Module):
        def forward(self, x):
            return 20 * x.mean((1, 2, 3))

    bright = search(generator, image, mask, truth, Search(300, prior=1.0), critic=Bright())
    assert bool((bright.image.mean((1, 2, 3)) > image.mean((1, 2, 3))).all())


def test_it_can_be_stopped_and_changes_nothing_given(task):
    generator, truth, image, mask = task
    before = truth.clone(), image.clone()

    def stop(step):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(generator, image, mask, truth, Search(10), tick=stop)
    assert torch.equal(truth, before[0])
    assert torch.equal(image, before[1])
