"""What recipes with a discriminator share: settings, optimizers, what it is shown, penalty, turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from velatura.errors import InputError
from velatura.losses import adversarial, energy_score, spectral
from velatura.nets.features import Features
from velatura.nets.projected import ProjectedDiscriminator
from velatura.training.recipe import TrainConfig

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["AdversarialConfig", "ProjectedCritic", "adam", "augment", "beside", "descend_critic", "frozen", "r1"]

SHIFT, CUT = 1 / 8, 1 / 2  # of the side: Zhao et al. 2020, section 3.2
LOOKED_AT = ("stride4", "stride8", "stride16")  # layers of the features that a projected discriminator sees


class AdversarialConfig(TrainConfig):
    """Settings of a generator that learns from discriminators."""

    features: str = Field("velatura", description="what images are compared in: velatura, a file, or nothing at all")
    loss: Literal["log", "hinge"] = Field("log", description="of generator and discriminator")
    critic_rate: float = Field(3e-4, gt=0, description="learning rate of the discriminator")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's first decay")
    penalty: float = Field(1.0, ge=0, description="weight gamma of R1; 0 = none")
    penalty_every: int = Field(8, ge=1, description="steps between penalties, each as much stronger")
    augmented: bool = Field(True, description="change what the discriminator sees at random")
    projected: float = Field(
        0.0, ge=0, description="weight of a second discriminator, which looks through our features"
    )
    projected_rate: float = Field(4e-4, gt=0, description="its learning rate")
    energy: float = Field(
        0.0,
        ge=0,
        description="weight of the energy score, through the same features: draws are to vary as photographs do",
    )
    spectral: float = Field(0.0, ge=0, description="weight of frequencies that are stronger than in photographs")

    @model_validator(mode="after")
    def _looks_through_features(self) -> Self:
        if self.projected and not self.features:
            raise ValueError(f"projected={self.projected}: it looks through features, and features= names none")
        if self.energy and not self.projected:
            raise ValueError(
                f"energy={self.energy}: it is of what the projected discriminator looks at; projected=2, or energy=0"
            )
        return self


def adam(
    config: AdversarialConfig, networks: Mapping[str, nn.Module], second_decay: float = 0.99
) -> dict[str, Optimizer]:
    """Give Adam for a generator and its discriminators, each with its rate.

    Parameters
    ----------
    config : AdversarialConfig
    networks : mapping of str to Module
        ``discriminator`` and ``projected`` have rates of their own; any other is a generator.
    second_decay : float
        Of Adam; the first is ``beta1``.

    Examples
    --------
    >>> config = AdversarialConfig(critic_rate=1e-3)
    >>> found = adam(config, {"generator": nn.Linear(2, 2), "discriminator": nn.Linear(2, 1)})
    >>> [each.defaults["lr"] for each in found.values()]
    [0.0003, 0.001]
    """
    rates = {"discriminator": config.critic_rate, "projected": config.projected_rate}
    return {
        name: Adam(
            [weights for weights in network.parameters() if weights.requires_grad],
            lr=rates.get(name, config.learning_rate),
            betas=(config.beta1, second_decay),
        )
        for name, network in networks.items()
    }


def descend_critic(
    training: Training, loss: Tensor, slope: Callable[[], Tensor], config: AdversarialConfig, step: int
) -> Tensor:
    """Let the network ``discriminator`` learn, in some steps with a penalty on its slope.

    Parameters
    ----------
    training : Training
    loss : Tensor
        What it descends.
    slope : callable
        Gives `r1`; called in steps with a penalty alone.
    config : AdversarialConfig
    step : int

    Returns
    -------
    Tensor
        The slope, 0 in steps without.
    """
    found = torch.zeros_like(loss)
    if config.penalty > 0 and step % config.penalty_every == 0:
        with training.fabric.autocast():
            found = slope()
    training.descend("discriminator", loss + 0.5 * config.penalty * config.penalty_every * found)
    return found.detach()


def r1(critic: Callable[..., Tensor], images: Sequence[Tensor]) -> Tensor:
    """Give the mean squared gradient of the logits with respect to photographs, summed over the images of each.

    Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018 (arXiv 1801.04406),
    equation 9.

    Parameters
    ----------
    critic : callable
        From the images to the sum of the logits; not Fabric's wrapper, which allows no gradient but that of `descend`.
    images : sequence of Tensor, (N, C, H, W)
        Of any sizes; what the critic does not look at adds nothing.

    Examples
    --------
    >>> r1(lambda image: 3 * image.sum(), [torch.zeros(2, 1, 2, 2)]).item()
    36.0
    """
    seen = [image.detach().requires_grad_() for image in images]
    gradients = torch.autograd.grad(critic(*seen), seen, create_graph=True, allow_unused=True)
    return torch.stack([each.square().sum((1, 2, 3)).mean() for each in gradients if each is not None]).sum()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of a network's weights: the generator's turn needs those of its input alone.

    Examples
    --------
    >>> layer = nn.Linear(1, 1)
    >>> with frozen(layer):
    ...     layer.weight.requires_grad
    False
    >>> layer.weight.requires_grad
    True
    """
    learning = [weights for weights in network.parameters() if weights.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for weights in learning:
            weights.requires_grad_(True)


class ProjectedCritic:
    """A second discriminator, which looks through our features: its turn, and the generator's.

    Sauer, Chitta, Müller, Geiger, "Projected GANs Converge Faster", 2021 (arXiv 2111.01007), with the hinge loss. A
    distance in these features then flatters the generator: look at that of another network, too.

    Parameters
    ----------
    features : Features
        What it looks through; they stay as they are.
    classes, text_size : int
        As of `velatura.nets.projected.ProjectedDiscriminator`.

    Attributes
    ----------
    network : ProjectedDiscriminator
        To be the network ``projected`` of a recipe.

    Raises
    ------
    InputError
        The features are another network's.
    """

    def __init__(self, features: nn.Module, classes: int = 0, text_size: int = 0) -> None:
        if not isinstance(features, Features):
            raise InputError(f"projected: it looks through our own features, not {type(features).__name__}'s")
        self.features = features
        channels = {name: Features.CHANNELS[name] for name in LOOKED_AT}
        self.network = ProjectedDiscriminator(channels, classes=classes, text_size=text_size)

    def descend(
        self,
        training: Training,
        image: Tensor,
        made: Tensor,
        label: Tensor | None = None,
        wrong: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> Tensor:
        """Let it learn to tell made images from photographs with their label, and from these photographs with others.

        Parameters
        ----------
        training : Training
        image, made : Tensor of float32, (N, C, H, W)
        label : Tensor, optional
            Classes or sentences of the photographs, and of what is made.
        wrong : Tensor, optional
            Such as do not fit the photographs: these are to be told from others, too.
        asked : Tensor, optional
            What was asked for, if not `label`.

        Returns
        -------
        Tensor
            Its loss, detached.
        """
        real, critic = self._maps(training, image), training.networks["projected"]
        fake = self._maps(training, made)
        judged = [(critic(real, label), True), (critic(fake, label if asked is None else asked), False)]
        if wrong is not None:
            judged.append((critic(real, wrong), False))
        shares = {True: 1.0, False: 1 / (len(judged) - 1)}
        loss = torch.stack([shares[is_real] * _hinge(logits, is_real) for logits, is_real in judged]).sum()
        training.descend("projected", loss)
        return loss.detach()

    def follow(self, training: Training, made: Tensor, label: Tensor | None = None) -> Tensor:
        """Give what the generator pays for its images."""
        with frozen(self.network):
            logits = training.networks["projected"](self._maps(training, made), label)
        return -torch.stack([each.mean() for each in logits]).mean()

    def energy(self, training: Training, made: Tensor, other: Tensor, image: Tensor) -> Tensor:
        """Give what the generator pays for draws that vary less than photographs do, or that are not like them.

        The discriminators look at one image at a time, and are slow to mind that all are alike.

        Parameters
        ----------
        training : Training
        made, other : Tensor of float32, (N, C, H, W)
            Two draws of each label; the gradient is by the first.
        image : Tensor of float32, (N, C, H, W)
            A photograph of that label.

        Returns
        -------
        Tensor
            `velatura.losses.energy_score` of the features' means over quarters of the image.
        """
        with torch.no_grad():
            theirs = [self._quarters(training, each) for each in (other, image)]
        return energy_score(self._quarters(training, made), *theirs)

    def _quarters(self, training: Training, image: Tensor) -> Tensor:
        features = self.features.to(image.device)
        with training.fabric.autocast():
            maps = features(image.expand(-1, 3, -1, -1), LOOKED_AT[1:])
        return torch.cat([functional.adaptive_avg_pool2d(each.float(), 2).flatten(1) for each in maps.values()], dim=1)

    def _maps(self, training: Training, image: Tensor) -> dict[str, Tensor]:
        features = self.features.to(image.device)
        with training.fabric.autocast():
            return features(augment(image).expand(-1, 3, -1, -1), LOOKED_AT)  # grey as RGB


def beside(
    onlooker: ProjectedCritic | None,
    training: Training,
    config: AdversarialConfig,
    made: Tensor,
    others: Tensor,
    image: Tensor,
    label: Tensor | None = None,
    paired: slice = slice(None),
) -> tuple[dict[str, Tensor], Tensor]:
    """Give what a generator pays beside what its own discriminator holds against it.

    Parameters
    ----------
    onlooker : ProjectedCritic or None
    training : Training
    config : AdversarialConfig
        The weights: ``projected``, ``energy``, ``spectral``; what has none is left out.
    made, others : Tensor of float32, (N, C, H, W)
        Two draws of each label; the gradient is by the first.
    image : Tensor of float32, (N, C, H, W)
        Photographs.
    label : Tensor, optional
        What was asked for.
    paired : slice
        Which photographs have the label of the draws beside them.

    Returns
    -------
    figures : dict of str to Tensor
        ``whole`` of the onlooker, ``energy`` and ``spectral``, without weights.
    total : Tensor
        Their weighted sum.
    """
    figures: dict[str, Tensor] = {}
    total = torch.zeros((), device=made.device)
    if onlooker:
        figures["whole"] = onlooker.follow(training, made, label)
        total = total + config.projected * figures["whole"]
        if config.energy:
            figures["energy"] = onlooker.energy(training, made[paired], others[paired], image[paired])
            total = total + config.energy * figures["energy"]
    if config.spectral:
        figures["spectral"] = spectral(made, image)
        total = total + config.spectral * figures["spectral"]
    return figures, total


def _hinge(logits: Sequence[Tensor], real: bool) -> Tensor:
    return torch.stack([adversarial(each, real, "hinge") for each in logits]).mean()


def augment(image: Tensor, tones: bool = True) -> Tensor:
    """Change light, saturation, contrast and place of each image, and cut a square out: with a gradient.

    Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020 (arXiv 2006.10738), section 3.2.

    Parameters
    ----------
    image : Tensor of float32, (N, C, H, W)
        0..1.
    tones : bool
        Whether light, saturation and contrast change; without, only the place, and the square.

    Returns
    -------
    Tensor
        Of the same shape; black where nothing is left.
    """
    count, _, height, width = image.shape
    device = image.device

    def uniform() -> Tensor:
        return torch.rand(count, 1, 1, 1, device=device)

    if tones:
        image = image + (uniform() - 0.5) / 2  # half of the paper's, whose images have the range -1..1
        grey = image.mean(1, keepdim=True)
        image = grey + 2 * uniform() * (image - grey)
        mean = image.mean((1, 2, 3), keepdim=True)
        image = mean + (0.5 + uniform()) * (image - mean)

    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    # Whole pixels, so that nothing is blurred; what comes from outside is black.
    down, right = (((2 * uniform() - 1) * SHIFT * size).round().long().view(-1, 1) for size in (height, width))
    y, x = rows + down, columns + right
    inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[:, None, None, :]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    moved = image[torch.arange(count, device=device)[:, None, None], :, y[:, :, None], x[:, None, :]]
    image = moved.permute(0, 3, 1, 2) * inside

    top, left = (uniform().view(-1, 1) * size - CUT / 2 * size for size in (height, width))
    cut_rows = (rows >= top) & (rows < top + CUT * height)
    cut_columns = (columns >= left) & (columns < left + CUT * width)
    return image * ~(cut_rows[:, None, :, None] & cut_columns[:, None, None, :])
