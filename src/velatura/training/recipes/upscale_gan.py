"""Train the upscalers that invent detail: SRGAN, ESRGAN, and ESRGAN for photographs from the wild.

Ledig et al. 2016 (arXiv 1609.04802), equation 3: content, compared in a network's features, and a critic's judgement.
Wang et al. 2018 (arXiv 1809.00219), equation 3: features before activation, a relativistic critic, a little L1. Wang et
al. 2021, "Real-ESRGAN" (arXiv 2107.10833): low resolution as it is found, not as it is made by shrinking alone. All
start from the network of the same kind that was trained for PSNR (``--set start=FILE``), so that weights in between
are both faithful and sharp as one likes (ESRGAN, section 3.4).

The papers' ablation is settings alone (`velatura.training.ablation`). With a user's VGG-19, the layers of the papers::

    --set features=vgg19:FILE --set content={conv2_2=0.006}      SRGAN, shallow features
    --set features=vgg19:FILE --set content={conv5_4=0.006}      SRGAN, deep features

Differs from the papers: our own features (`velatura.nets.features`) in place of VGG-19's; compact networks, tens of
minutes of training and not weeks; the discriminators' own differences (`velatura.nets.sr_discriminator`); a term of
colour, the absolute error of what is left at the size of the input, which holds the mean colour and all else that the
input does determine; a term against what repeats with the grid (`lattice`), without which a short training leaves a
weave; content and critic see luma alone and colour is compared pixel by pixel (``luma = true``, ``chroma``), so that no
detail of colour is invented, which looked like noise; the weights measured are a running average. Real-ESRGAN's
originals are not sharpened, and a share of its pairs is merely shrunk, so that clean photographs stay as they are.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from velatura import catalog
from velatura.errors import ModelError
from velatura.losses import adversarial, content_loss, l1, mse, relativistic, total_variation
from velatura.metrics import perceptual
from velatura.nets.sr_discriminator import Discriminator, UNetDiscriminator
from velatura.nets.srcnn import luma
from velatura.ops.degrade import second_order
from velatura.perceptual import load_features
from velatura.training import data
from velatura.training.critics import frozen
from velatura.training.recipes import upscale
from velatura.training.recipes.upscale import Pairs, RRDBConfig, SRResNetConfig, Upscaler

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "Adversarial",
    "Critics",
    "ESRGANConfig",
    "ESRGANPhotoConfig",
    "SRGANConfig",
    "TrainESRGAN",
    "TrainESRGANPhoto",
    "TrainSRGAN",
    "WornPairs",
    "checkerboard",
    "color_shift",
    "drawings",
    "evaluate",
    "grid_peaks",
    "lattice",
    "make_critic",
    "measure",
    "table",
    "wear",
]

# Of esrgan-photo: share of the patches, set, folder in the set.
PHOTO_SETS = (
    (0.3, "sr_t91_bsds400", ""),
    (0.3, "sr_hr_patches", ""),
    (0.15, "faces256", "color/"),
    (0.1, "faces128", "color/"),
    (0.1, "styles", "misc/"),
    (0.05, "emoji64", ""),
)
HELD_OUT_SEED = 2107  # of how held-out photographs are worn
SHEET = 4  # emoji in a row of a drawing: one alone is smaller than a patch


class Critics(BaseModel):
    """What a GAN adds to the settings of its generator."""

    features: str = Field("velatura", description="what content is compared in: velatura, a file, or vgg19:FILE")
    content: dict[str, float] = Field({}, description="layers of the features and their weights; {}: none")
    activated: bool = Field(False, description="features behind the activation, as in SRGAN")
    luma: bool = Field(False, description="content and critic see luma alone; what is left is colour")
    chroma: float = Field(0.0, ge=0, description="weight of the error of what is left without luma")
    pixel: float = Field(0.01, ge=0, description="weight of the pixels' error, whose form is `loss`")
    color: float = Field(0.1, ge=0, description="weight of the error that is left at the size of the input")
    variation: float = Field(0.0, ge=0, description="weight of the total variation")
    lattice: float = Field(0.0, ge=0, description="weight of `lattice`, the error that repeats from pixel to pixel")
    adversarial: float = Field(0.005, ge=0, description="weight of the critic's judgement")
    form: Literal["log", "hinge", "relativistic"] = Field("log", description="of the adversarial loss")
    critic: Literal["srgan", "unet"] = Field("srgan", description="whose discriminator: SRGAN's or Real-ESRGAN's")
    critic_width: int = Field(32, ge=4, description="channels of the critic at full size")
    critic_dense: int = Field(256, ge=1, description="width of SRGAN's first dense layer")
    critic_window: int = Field(1, ge=1, description="places of 16 pixels that SRGAN's critic judges at once")
    critic_norm: Literal["spectral", "batch", "none"] = Field("spectral", description="of SRGAN's critic")
    critic_rate: float = Field(2e-4, gt=0, description="learning rate of the critic")


class SRGANConfig(SRResNetConfig, Critics):
    """Settings of `TrainSRGAN`."""


class ESRGANConfig(RRDBConfig, Critics):
    """Settings of `TrainESRGAN`."""


class ESRGANPhotoConfig(ESRGANConfig):
    """Settings of `TrainESRGANPhoto`."""

    clean: float = Field(0.15, ge=0, le=1, description="share of the pairs that are shrunk and nothing else")


class Adversarial(Upscaler):
    """What the three recipes share: a generator, a critic, and the sum of what they follow."""

    name: str
    architecture: str

    def __init__(self, config: Any) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        generator, self.arguments = upscale.make_generator(config)
        self.networks: dict[str, nn.Module] = {"generator": generator, "critic": make_critic(config)}

    @cached_property
    def features(self) -> nn.Module:
        """What content is compared in."""
        found = load_features(self.config.features).eval().requires_grad_(False)
        return found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def own_features(self) -> nn.Module:
        """What the perceptual distance is measured in, whatever the loss looks through."""
        return load_features() if self.config.features.startswith("vgg19:") else self.features

    @cached_property
    def before(self) -> nn.Module | None:
        """The network that the training started from, if its file is still there."""
        if not self.config.start:
            return None
        network = upscale.make_generator(self.config)[0]
        try:
            network.load_state_dict(catalog.load_state(self.config.start, network))
        except ModelError:
            return None
        return network.eval().requires_grad_(False)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for both, or Muon for the generator."""
        critic, betas = self.networks["critic"], (self.config.beta1, 0.999)
        return {
            "generator": upscale.generator_optimizer(self.networks["generator"], self.config),
            "critic": Adam(critic.parameters(), lr=self.config.critic_rate, betas=betas),
        }

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """The generator follows content, colour, pixels and critic; then the critic learns to tell its images apart."""
        config = self.config
        low, high = batch
        generator, critic = training.networks["generator"], training.networks["critic"]
        made = generator(low)

        small = functional.avg_pool2d(made, config.scale), functional.avg_pool2d(high, config.scale)
        parts = {
            "pixel": (config.pixel, l1(made, high) if config.loss == "l1" else mse(made, high)),
            "color": (config.color, l1(*small)),
            "variation": (config.variation, total_variation(made)),
            "chroma": (config.chroma, l1(made - luma(made), high - luma(high))),
            "lattice": (config.lattice, lattice(made - high, config.scale)),
        }
        if config.luma:
            made, high = _grey(made), _grey(high)
        if config.content:
            self.features.to(made.device)
            with training.fabric.autocast():
                parts["content"] = (1.0, content_loss(self._extract, made, high, config.content))
        if config.adversarial:
            with frozen(self.networks["critic"]):
                parts["adversarial"] = (config.adversarial, self._persuade(critic, made, high))
        training.descend("generator", torch.stack([weight * value for weight, value in parts.values()]).sum())
        figures = {name: value.detach() for name, (_, value) in parts.items()}
        if config.adversarial:
            loss = self._judge(critic, made.detach(), high)
            training.descend("critic", loss)
            figures["critic"] = loss.detach()
        return figures

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR on luma and perceptual distance beside those of bicubic enlargement; colour; checkerboards."""
        ours = [upscale.enlarge(network, low) for low in self.held.low]
        figures = {
            "": self._figures(ours),
            "_bicubic": {unit: self._bicubic[unit] for unit in ("psnr", "perceptual")},
        }
        return {f"{unit}{end}": float(v.mean()) for end, units in figures.items() for unit, v in units.items()}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`evaluate` on this recipe's held-out pairs."""
        return evaluate(network, self.held, self.own_features, self.before)

    def table(self, scores: dict[str, Any]) -> str:
        """`table`."""
        return table(scores)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of bicubic, the network started from, ours, original, as far as there are such."""
        count = min(len(self.held), upscale.SHOWN)
        low, high = self.held.low[:count], self.held.high[:count]
        networks = [one for one in (self.before, network) if one is not None]
        columns = [[upscale.enlarge(one, image) for image in low] for one in networks]
        return upscale.contact_sheet([self.baseline[:count], *columns, high], 40 * self.config.scale)

    @cached_property
    def _bicubic(self) -> dict[str, NDArray[np.float64]]:
        return self._figures(self.baseline)

    def _figures(self, images: list[NDArray[np.uint8]]) -> dict[str, NDArray[np.float64]]:
        found = measure(images, self.held, self.own_features)
        return {unit: found[unit] for unit in ("psnr", "perceptual", "color", "checkerboard")}

    def _extract(self, image: Tensor, layers: Any) -> dict[str, Tensor]:
        maps = self.features(image, layers)
        return self.features.activated(maps) if self.config.activated else maps  # type: ignore[operator]

    def _persuade(self, critic: nn.Module, made: Tensor, high: Tensor) -> Tensor:
        """What the critic's judgement costs the generator."""
        fake = critic(made)
        if self.config.form == "relativistic":
            return relativistic(critic(high), fake)[0]
        return adversarial(fake, True, self.config.form, critic=False)

    def _judge(self, critic: nn.Module, made: Tensor, high: Tensor) -> Tensor:
        """What it costs the critic."""
        real, fake = critic(high), critic(made)
        if self.config.form == "relativistic":
            return relativistic(real, fake)[1]
        return adversarial(real, True, self.config.form) + adversarial(fake, False, self.config.form)


class TrainSRGAN(Adversarial):
    """The recipe of SRGAN: an SRResNet with content loss and a critic."""

    name = "srgan"
    architecture = "SRResNet"


class TrainESRGAN(Adversarial):
    """The recipe of ESRGAN: an RRDB-net with features before activation and a relativistic critic."""

    name = "esrgan"
    architecture = "RRDB"


class TrainESRGANPhoto(Adversarial):
    """The recipe of ESRGAN for photographs from the wild: worn low resolution, a critic of every pixel."""

    name = "esrgan-photo"
    architecture = "RRDB"

    @cached_property
    def pairs(self) -> WornPairs:  # type: ignore[override]
        """Training pairs; the images are read when the first batch is drawn."""
        return WornPairs(self._images(), self.config.scale, self.config.clean)

    @cached_property
    def held(self) -> Pairs:
        """The held-out photographs, each worn in one way that stays the same."""
        pairs = super().held
        wear(pairs)
        return pairs

    def _images(self) -> list[tuple[float, list[NDArray[np.uint8]]]]:
        """Share and images of each set; the user's folder alone, if one is named."""
        if self.config.photographs:
            return [(1.0, upscale.read_pairs(self.config, "train").high)]
        folder = data.data_folder(self.config.data)
        found = []
        for share, name, under in PHOTO_SETS:
            mode = "RGBA" if name == "emoji64" else "RGB"
            purpose = "upscale" if name in upscale.SETS else ""
            images = data.read_set(folder, name, "train", under=under, mode=mode, purpose=purpose)
            arrays = [images[i] for i in range(len(images))]
            found.append((share, drawings(arrays) if mode == "RGBA" else arrays))
        return found


class WornPairs:
    """Patches of images beside what is left of them after a photograph's usual fate.

    Parameters
    ----------
    sets : list of (float, list of ndarray of uint8, (H, W, 3))
        Share of the patches, and the images.
    scale : int
        How many times smaller the low resolution is.
    clean : float
        Share of the patches that are shrunk and nothing else.
    """

    def __init__(self, sets: list[tuple[float, list[NDArray[np.uint8]]]], scale: int, clean: float) -> None:
        self.sets, self.scale, self.clean = sets, scale, clean
        self._sizes = [np.array([image.shape[:2] for image in images], dtype=np.int64) for _, images in sets]

    def draw(self, rng: np.random.Generator, n: int, patch: int) -> tuple[Tensor, Tensor]:
        """Draw patches as `velatura.training.recipes.upscale.Pairs.draw` does."""
        side = patch * self.scale
        low = np.empty((n, patch, patch, 3), np.uint8)
        high = np.empty((n, side, side, 3), np.uint8)
        shares = np.array([share for share, _ in self.sets])
        for i, chosen in enumerate(rng.choice(len(shares), size=n, p=shares / shares.sum())):
            (place,) = upscale.draw_places(self._sizes[chosen], rng, 1, side, 1)
            high[i] = place.cut(self.sets[chosen][1][place.index])
            if rng.random() < self.clean:
                low[i] = upscale.shrink(high[i], self.scale)
            else:
                low[i] = _eight_bit(second_order(_unit(high[i]), rng, patch, patch))
        return upscale.to_tensor(low), upscale.to_tensor(high)


def wear(pairs: Pairs) -> None:
    """Replace each low resolution by what is left of its original after a photograph's usual fate, always the same."""
    pairs.low = [
        _eight_bit(second_order(_unit(high), np.random.default_rng((HELD_OUT_SEED, i)), *low.shape[:2]))
        for i, (low, high) in enumerate(zip(pairs.low, pairs.high, strict=True))
    ]


def drawings(emoji: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Put emoji (H, W, 4), all of one size, on white, sixteen to a drawing (4 H, 4 W, 3); what is over is left out."""
    flat = []
    for image in emoji:
        alpha = image[..., 3:] / np.float32(255)
        flat.append(_eight_bit((image[..., :3] * alpha + 255 * (1 - alpha)) / 255))
    per = SHEET**2
    sheets = [flat[start : start + per] for start in range(0, len(flat) - per + 1, per)]
    return [np.vstack([np.hstack(sheet[i : i + SHEET]) for i in range(0, per, SHEET)]) for sheet in sheets]


def measure(images: list[NDArray[np.uint8]], pairs: Pairs, features: nn.Module) -> dict[str, NDArray[np.float64]]:
    """PSNR and SSIM on luma, perceptual distance, shift of colour in grey levels, and checkerboards, of each image."""
    features.to("cpu")
    both = list(zip(images, pairs.high, strict=True))
    return {
        **upscale.fidelity(images, pairs),
        "perceptual": np.array([perceptual.perceptual_distance(a, b, features) for a, b in both]),
        "color": np.array([color_shift(a, low) for a, low in zip(images, pairs.low, strict=True)]),
        "checkerboard": np.array([checkerboard(a, pairs.scale) for a in images]),
    }


def color_shift(image: NDArray[np.uint8], low: NDArray[np.uint8]) -> float:
    """Give the largest difference of the channels' means, in grey levels.

    Examples
    --------
    >>> grey = np.full((8, 8, 3), 100, np.uint8)
    >>> color_shift(grey + np.uint8([0, 3, 1]), grey[:2, :2])
    3.0
    """
    return float(np.abs(image.mean((0, 1)) - low.mean((0, 1))).max())


def grid_peaks(images: Tensor, scale: int) -> Tensor:
    """Say how far the frequencies of the enlargement's grid stand out.

    A network that enlarges `scale` times can leave a pattern of that period, or of half of it: what enlarges leaves its
    own marks in the spectrum (Durall, Keuper, Keuper 2020, "Watch your Up-Convolution", arXiv 2003.01826). In luma's
    spectrum, down the columns and along the rows, the power at each such frequency is compared with that around it.

    Parameters
    ----------
    images : Tensor of float32, (N, 3, H, W)
        Of one spectrum together; each side at least 48.
    scale : {2, 4}

    Returns
    -------
    Tensor, (scale,)
        In dB; about 0 for photographs.

    Examples
    --------
    >>> noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> stripes = noise.clone()
    >>> stripes[:, :, ::4] += 0.2
    >>> bool((grid_peaks(noise, 4) < 2).all()), (grid_peaks(stripes, 4) > 3).tolist()
    (True, [True, True, False, False])
    """
    plane = luma(images)[:, 0]
    found = []
    for lines in (plane, plane.transpose(1, 2)):
        lines = lines[:, : lines.shape[1] // scale * scale]
        window = torch.hann_window(lines.shape[1], dtype=lines.dtype, device=lines.device)[:, None]
        power = torch.fft.rfft(lines * window, dim=1).abs().square().mean((0, 2)) + 1e-6  # a flat image has none
        for k in range(1, scale // 2 + 1):
            at = k * lines.shape[1] // scale
            around = torch.cat([power[at - 10 : at - 3], power[at + 4 : at + 11]]).mean()
            found.append(10 * (power[at - 1 : at + 2].mean() / around).log10())
    return torch.stack(found)


def lattice(error: Tensor, scale: int) -> Tensor:
    """Say how much of an error repeats from one pixel of the low resolution to the next.

    A generator has nothing but its input to draw from, and where that is plain it can only make detail that repeats
    with the grid: a weave, which a critic is slow to notice. Each place within a pixel is followed by itself through
    the image; what 3x3 neighbours agree on, and the places within a pixel do not, is a lattice. So this is a fidelity
    in the frequencies around those of the grid, where nothing is to be invented, and in no others.

    Parameters
    ----------
    error : Tensor, (N, 3, H, W)
        Made less original; sides multiples of ``scale``, at least three times it.
    scale : int

    Returns
    -------
    Tensor, ()
        Mean absolute value.

    Examples
    --------
    >>> stripes, fives = torch.zeros(2, 1, 3, 80, 80)
    >>> stripes[:, :, ::4], fives[:, :, ::5] = 0.4, 0.4
    >>> round(float(lattice(stripes, 4)), 3), round(float(lattice(fives, 4)), 3)
    (0.15, 0.059)
    """
    cells = functional.pixel_unshuffle(error.flatten(0, 1)[:, None], scale)
    return functional.avg_pool2d(cells - cells.mean(1, keepdim=True), 3, 1).abs().mean()


@torch.no_grad()
def checkerboard(image: NDArray[np.uint8], scale: int) -> float:
    """Give the largest of `grid_peaks` of one image (H, W, 3), in dB."""
    return float(grid_peaks(upscale.to_tensor(image[None]), scale).max())


def evaluate(
    network: nn.Module, pairs: Pairs, features: nn.Module, before: nn.Module | None = None, seed: int = 0
) -> dict[str, Any]:
    """Fidelity and perception side by side: of bicubic enlargement, the network started from, and ours.

    Parameters
    ----------
    network : nn.Module
        From RGB in 0..1 to `pairs.scale` times the size.
    pairs : Pairs
        What is measured.
    features : nn.Module
        Our own features, which the perceptual distance is measured in.
    before : nn.Module, optional
        The network that ours started from.
    seed : int
        Of the bootstrap over images.

    Returns
    -------
    dict
        ``rows[method][unit]`` = mean, low, high (95 %), methods ``bicubic``, ``start`` and ``ours``, units ``psnr``
        (dB), ``ssim``, ``perceptual``, ``color`` (grey levels) and ``checkerboard`` (dB, also of the method
        ``original``); ``protocol`` in words; ``images``, ``scale``, ``seed``.
    """
    methods = {"bicubic": [upscale.bicubic(low, pairs.scale) for low in pairs.low]}
    for name, one in (("start", before), ("ours", network)):
        if one is not None:
            methods[name] = [upscale.enlarge(one, low) for low in pairs.low]
    figures = {method: measure(images, pairs, features) for method, images in methods.items()}
    figures["original"] = {"checkerboard": np.array([checkerboard(high, pairs.scale) for high in pairs.high])}
    return {
        "images": len(pairs),
        "scale": pairs.scale,
        "seed": seed,
        "protocol": f"{upscale.PROTOCOLS[pairs.scale]}; {perceptual.PROTOCOL}",
        "rows": {
            method: {unit: upscale.interval(values, seed) for unit, values in units.items()}
            for method, units in figures.items()
        },
    }


def table(scores: dict[str, Any]) -> str:
    """The result of `evaluate`, to be read."""
    lines = [f"x{scores['scale']}, {scores['images']} images; {scores['protocol']}"]
    lines.append(f"{'method':8} {'PSNR dB':>8} {'SSIM':>7} {'perceptual':>24} {'color':>6} {'checkerboard dB':>16}")
    for method, units in scores["rows"].items():
        row = f"{method:8} {'':48}"
        if "psnr" in units:
            mean, low, high = units["perceptual"]
            looks = f"{mean:.4f} ({low:.4f}..{high:.4f})"
            row = f"{method:8} {units['psnr'][0]:8.2f} {units['ssim'][0]:7.4f} {looks:>24} {units['color'][0]:6.2f}"
        lines.append(f"{row} {units['checkerboard'][0]:16.1f}")
    return "\n".join(lines)


def make_critic(config: Critics) -> nn.Module:
    """Make the critic of these settings."""
    if config.critic == "unet":
        return UNetDiscriminator(config.critic_width)
    return Discriminator(config.critic_width, config.critic_dense, config.critic_window, config.critic_norm)


def _grey(images: Tensor) -> Tensor:
    """Luma in all three channels."""
    return luma(images).expand(-1, 3, -1, -1)


def _unit(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return image.astype(np.float32) / np.float32(255)


def _eight_bit(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8)
