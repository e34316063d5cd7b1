"""Train pictures from words: joint embedding, text-to-image GAN in four variants, style encoder; one after the other.

Reed et al. 2016 (arXiv 1605.05396 and 1605.05395). The discriminator of GAN-CLS sees real pictures with wrong sentences
too (algorithm 1); the generator of GAN-INT is also asked for what lies between two sentences (equation 5). ``variant``
chooses ``gan``, ``gan-cls``, ``gan-int`` or ``gan-int-cls``; all cost the same per step.

Differs from the papers: hinge loss, a penalty on the discriminator's slope (Mescheder et al. 2018, R1), pictures
changed at random before it sees them (Zhao et al. 2020); the generator measured is a running average; half of the
generator's sentences are interpolated in place of a second term for as many more, and the discriminator sees what is
made of these, too: else one picture that it was never shown passes for all of them; some wrong sentences are the right
one with another colour. With ``projected`` a second discriminator looks through our features (Sauer et al. 2021, arXiv
2111.01007); as it left a grid of single pixels, with ``spectral`` frequencies cost that are stronger than in photos
(Durall et al. 2020, arXiv 2003.01826), and with ``energy`` draws of a sentence that are too much alike (Gneiting and
Raftery 2007). ``imagine_paper.toml`` leaves out what can be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from velatura.catalog import load, open_weights
from velatura.errors import InputError
from velatura.losses import adversarial
from velatura.metrics.report import bootstrap
from velatura.nets.gan_cls import MatchingDiscriminator, TextToImage
from velatura.nets.text_encoder import PADDING, UNKNOWN, JointEmbedding, pooled_maps, structured_loss
from velatura.ops.color_names import petal_colors
from velatura.perceptual import load_features
from velatura.training import captions, data
from velatura.training.captions import Captioned
from velatura.training.critics import (
    AdversarialConfig,
    ProjectedCritic,
    adam,
    augment,
    beside,
    descend_critic,
    frozen,
    r1,
)
from velatura.training.pictures import contact_sheet
from velatura.training.recipe import TrainConfig
from velatura.training.recipes.generate import kernel_distance

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "ImagineConfig",
    "StyleEncoderConfig",
    "TextEncoderConfig",
    "TrainImagine",
    "TrainStyleEncoder",
    "TrainTextEncoder",
    "between",
    "color_shown",
    "distances",
    "made",
    "pooled",
    "read_sides",
    "retrieved",
    "style_pairs",
    "told_apart",
    "verification_auc",
    "within",
]

CHOICES = 10  # sentences that the right one is to be found among
MEASURED = 500  # pictures that a figure is of
WATCHED = 96  # the same, while it is trained
SHOWN = 8  # pictures in a row of a sheet
BETWEEN = 0.5  # of two sentences: section 4.3
JUDGED = 128  # pixels: colours are judged on pictures enlarged to this side
SHOWN_TEXTS = (
    "a red flower with a yellow centre",
    "a white flower with a yellow centre",
    "this flower has blue petals",
    "a purple star-shaped flower",
    "a yellow daisy-like flower with long petals",
    "an orange flower with ruffled petals",
    "a pink rose",
    "a blue daisy-like flower with a red centre",
)


class _WordsConfig(TrainConfig):
    """What the three recipes share."""

    subject: Literal["flowers", "emoji"] = Field("flowers", description="our set: flowers80 or emoji64")
    photographs: str | None = Field(None, description="folder in the layout of CUB, Oxford or COCO instead of our set")
    size: int = Field(64, ge=64, le=64, description="side of the pictures in pixels")
    features: str = Field("velatura", description="what pictures are compared in: velatura, or a file")


class TextEncoderConfig(_WordsConfig):
    """Settings of `TrainTextEncoder`."""

    form: Literal["words", "characters"] = Field("words", description="what sentences are read as")
    embedding: int = Field(96, ge=4, description="numbers of each word")
    width: int = Field(128, ge=4, description="hidden units of the recurrent network, each way")
    text_size: int = Field(256, ge=4, description="how many numbers a sentence becomes")
    picture_width: int = Field(384, ge=4, description="hidden units of the picture's encoder")
    forget: float = Field(0.08, ge=0, lt=1, description="share of words that are taken for unknown ones")
    rarest: int = Field(1, ge=1, description="how often a word has to be said to be known")


class ImagineConfig(_WordsConfig, AdversarialConfig):
    """Settings of `TrainImagine`."""

    text: str = Field("text-flowers", description="weights of the joint embedding: a model's name or a file")
    judge: str | None = Field(None, description="another joint embedding, which only measures")
    variant: Literal["gan", "gan-cls", "gan-int", "gan-int-cls"] = Field("gan-int-cls", description="of the paper's")
    loss: Literal["log", "hinge"] = Field("hinge", description="of generator and discriminator")
    noise: int = Field(100, ge=1, description="how many numbers are drawn")
    condensed: int = Field(128, ge=1, description="to how many numbers a sentence is condensed")
    width: int = Field(48, ge=4, description="channels of the generator at half the size")
    basis: int = Field(0, ge=0, description="side of the principal components that begin the noise; 0 = none")
    critic_width: int = Field(48, ge=4, description="channels of the discriminator at half the size")
    recolored: float = Field(0.5, ge=0, le=1, description="share of wrong sentences that differ in the colour alone")


class StyleEncoderConfig(_WordsConfig):
    """Settings of `TrainStyleEncoder`."""

    imagine: str = Field("imagine-flowers", description="weights of the generator: a model's name or a file")
    style_width: int = Field(32, ge=4, description="channels of the style encoder at half the size")


class _Worded:
    """What the recipes have: pictures with sentences of three sides, and features."""

    config: Any

    @cached_property
    def train(self) -> Captioned:
        """What is trained on."""
        return _read(self.config, "train")

    @cached_property
    def sides(self) -> dict[str, Captioned]:
        """What is measured on: new pictures of known classes, where there are any, and of unknown ones."""
        return read_sides(self.config)

    @cached_property
    def features(self) -> nn.Module:
        """What pictures are compared in."""
        return load_features(self.config.features).eval().requires_grad_(False)

    def asked(self, side: Captioned, count: int) -> tuple[NDArray[np.int64], list[str]]:
        """Give pictures of a side, spread evenly, and a sentence of each; always the same ones."""
        chosen = np.linspace(0, len(side) - 1, count).round().astype(int)
        return chosen, side.sentences(chosen, np.random.default_rng(count))


class TrainTextEncoder(_Worded):
    """The recipe of `velatura.nets.text_encoder`."""

    architecture = "JointEmbedding"
    divisible = False  # every picture is compared with every sentence of the batch

    def __init__(self, config: TextEncoderConfig) -> None:
        self.config = config
        self.name = "text-encoder"
        self.arguments = {
            "text": {
                "vocabulary": self._vocabulary(),
                "form": config.form,
                "embedding": config.embedding,
                "width": config.width,
                "size": config.text_size,
            },
            "picture": {"width": config.picture_width, "size": config.text_size},
        }
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"joint": JointEmbedding(**self.arguments)}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam."""
        return {"joint": Adam(self.networks["joint"].parameters(), lr=self.config.learning_rate)}

    @cached_property
    def maps(self) -> tuple[Tensor, Tensor]:
        """What the features see of the training pictures and of their mirror images; computed once."""
        pictures = self.train.pictures(np.arange(len(self.train)), self.config.size)
        return pooled(self.features, pictures), pooled(self.features, pictures.flip(-1))

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Pictures' maps, sentences, and which of them need not be told apart."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        chosen = rng.choice(len(self.train), self.config.batch_size, replace=self.config.batch_size > len(self.train))
        mirrored = torch.from_numpy(rng.random(len(chosen)) < 0.5)[:, None]
        maps = torch.where(mirrored, self.maps[1][chosen], self.maps[0][chosen])
        tokens = self._net.text.tokens(self.train.sentences(chosen, rng))
        if self.config.form == "words":
            # So that a name it never met does not matter: the classes of the test have such names.
            forgotten = torch.from_numpy(rng.random(tokens.shape) < self.config.forget) & (tokens != PADDING)
            tokens = tokens.masked_fill(forgotten, UNKNOWN)
        numbers = torch.from_numpy(self.train.descriptions[chosen])
        return maps, tokens, numbers[:, None] == numbers[None]

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Right pairs are to score higher than wrong ones, by the margin."""
        maps, tokens, alike = batch
        scores = training.networks["joint"](maps, tokens).float()
        loss = structured_loss(scores, alike)
        training.descend("joint", loss)
        first = (scores.detach().masked_fill(alike, -99).amax(1) < scores.detach().diagonal()).float().mean()
        return {"loss": loss.detach(), "first": first}

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """How often the right sentence is found among ten, by side."""
        return {name: float(found.mean()) for name, found in self._found(network).items()}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """The same, with intervals."""
        found = {name: bootstrap(hits) for name, hits in self._found(network).items()}
        return {name: [one.value, one.low, one.high] for name, one in found.items()}

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        rows = [f"{name} {value:.3f} ({low:.3f}..{high:.3f})" for name, (value, low, high) in scores.items()]
        return f"right sentence among {CHOICES}, chance .1: " + "; ".join(rows)

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """For each of some sentences, the held-out pictures that fit it best."""
        assert isinstance(network, JointEmbedding)
        name, side = next(iter(self.sides.items()))
        texts = list(SHOWN_TEXTS) if self.config.subject == "flowers" else self.asked(side, SHOWN)[1]
        device = next(network.parameters()).device
        scores = network(self._held_maps[name].to(device), network.text.tokens(texts).to(device)).cpu()
        best = scores.topk(min(SHOWN, len(side)), dim=0).indices.T
        return contact_sheet(torch.stack([side.pictures(row.numpy(), self.config.size) for row in best]))

    @property
    def _net(self) -> JointEmbedding:
        network = self.networks["joint"]
        assert isinstance(network, JointEmbedding)
        return network

    @cached_property
    def _held_maps(self) -> dict[str, Tensor]:
        return {
            name: pooled(self.features, side.pictures(np.arange(len(side)), self.config.size))
            for name, side in self.sides.items()
        }

    def _found(self, network: nn.Module) -> dict[str, NDArray[np.float64]]:
        assert isinstance(network, JointEmbedding)
        found = {}
        for name, side in self.sides.items():
            chosen, texts = self.asked(side, min(MEASURED, len(side)))
            found[name] = retrieved(network, self._held_maps[name][chosen], texts, side.descriptions[chosen])
        return found

    def _vocabulary(self) -> list[str]:
        said: dict[str, int] = {}
        for lines in self.train.captions:
            for word in {word for line in lines for word in captions.words_of(line)}:
                said[word] = said.get(word, 0) + 1
        return sorted(word for word, count in said.items() if count >= self.config.rarest)


class TrainImagine(_Worded):
    """The recipe of `velatura.nets.gan_cls`: generator and discriminator; the text encoder stays as it is."""

    architecture = "TextToImage"

    def __init__(self, config: ImagineConfig) -> None:
        self.config = config
        self.name = "imagine"
        told = load(config.text, {"JointEmbedding": JointEmbedding})
        header = open_weights(config.text).header
        assert header is not None  # load would have refused
        self.arguments = {
            "text": header.arguments["text"],
            "noise": config.noise,
            "condensed": config.condensed,
            "width": config.width,
            "size": config.size,
            "basis": config.basis,
        }
        torch.manual_seed(config.seed)
        imagine = TextToImage(**self.arguments)
        imagine.text.load_state_dict(told.text.state_dict())
        imagine.text.requires_grad_(False)
        critic = MatchingDiscriminator(told.text.size, config.condensed, config.critic_width, config.size)
        self.networks: dict[str, nn.Module] = {"imagine": imagine, "discriminator": critic}
        self.onlooker = ProjectedCritic(self.features, text_size=told.text.size) if config.projected else None
        if self.onlooker:
            self.networks["projected"] = self.onlooker.network

    def begin(self) -> None:
        """Set the generator's principal components, if any are asked for: of what no sentence says."""
        if self.config.basis:
            pictures = self.train.pictures(np.arange(len(self.train)), self.config.size)
            descriptions = torch.from_numpy(self.train.descriptions).repeat(2)
            if len(descriptions.unique()) == len(self.train):  # no two are alike: all that differs is the noise's
                descriptions = torch.zeros_like(descriptions)
            self._net.begin(torch.cat([pictures, pictures.flip(-1)]), descriptions)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for all; the text encoder learns nothing more."""
        return adam(self.config, self.networks)

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Pictures, right and wrong sentences, and noise for both networks' turns."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        count, train = self.config.batch_size, self.train
        chosen = rng.choice(len(train), count, replace=count > len(train))
        right = train.sentences(chosen, rng)
        text = self._net.text
        drawn = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return (
            train.pictures(chosen, self.config.size, rng),
            text.tokens(right),
            text.tokens([self._wrong(index, said, rng) for index, said in zip(chosen, right, strict=True)]),
            self._net.draw(2 * count, drawn),
        )

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """The discriminator learns what is real and fits (algorithm 1); then the generator follows it."""
        config = self.config
        image, right, wrong, z = batch
        first, second = z.chunk(2)
        imagine, critic = training.networks["imagine"], training.networks["discriminator"]
        with torch.no_grad():
            sentence, other = self._net.text(right), self._net.text(wrong)
            asked = between(sentence) if "int" in config.variant else sentence
            others = imagine(first, asked)
        real, mismatched = critic(self._seen(image), sentence, other)
        (fake,) = critic(self._seen(others), asked)
        loss = adversarial(fake, False, config.loss)
        if "cls" in config.variant:
            loss = 0.5 * (loss + adversarial(mismatched, False, config.loss))
        loss = loss + adversarial(real, True, config.loss)
        judge = self.networks["discriminator"]

        def penalty() -> Tensor:
            return r1(lambda seen: judge(seen, sentence)[0].sum(), [self._seen(image)])

        slope = descend_critic(training, loss, penalty, config, step)

        figures = {
            "discriminator": loss,
            "slope": slope,
            "real": real.mean(),
            "mismatched": mismatched.mean(),
            "fake": fake.mean(),
        }
        if self.onlooker:
            wrong = other if "cls" in config.variant else None
            figures["projected"] = self.onlooker.descend(training, image, others, sentence, wrong, asked)

        with frozen(judge):
            made = imagine(second, asked)
            (fake,) = critic(self._seen(made), asked)
            figures["generator"] = follow = adversarial(fake, True, config.loss, critic=False)
            # A photograph has a sentence, not what lies between two.
            said = slice(len(asked) // 2 if "int" in config.variant else 0, None)
            found, more = beside(self.onlooker, training, config, made, others, image, asked, said)
            figures |= found
            training.descend("imagine", follow + more)
        return {name: value.detach() for name, value in figures.items()}

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """How often the colour named is the one shown, and how far made pictures are from photographs."""
        figures = {}
        for name, side in self.sides.items():
            chosen, texts = self.asked(side, min(WATCHED, len(side)))
            made = self._made(network, texts)
            if side.colors[0]:
                figures[f"color_{name}"] = float(color_shown(made, [side.colors[i] for i in chosen]).mean())
            real = pooled(self.features, side.pictures(chosen, self.config.size))
            figures[f"distance_{name}"] = kernel_distance(pooled(self.features, made), real)
        return figures

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Colours; retrieval by the judge, if there is one; how much two draws of one sentence differ."""
        judge = load(self.config.judge, {"JointEmbedding": JointEmbedding}) if self.config.judge else None
        found: dict[str, Any] = {}
        for name, side in self.sides.items():
            chosen, texts = self.asked(side, MEASURED)
            made = self._made(network, texts)
            maps = pooled(self.features, made)
            if side.colors[0]:
                found[f"color_{name}"] = _interval(color_shown(made, [side.colors[i] for i in chosen]))
            if judge is not None:
                found[f"retrieval_{name}"] = _interval(retrieved(judge, maps, texts, side.descriptions[chosen]))
            alone = np.unique(chosen)
            if len(np.unique(side.kinds[alone])) < len(alone):  # else no two photographs are of one class
                again = pooled(self.features, self._made(network, texts, seed=1))
                photographs = pooled(self.features, side.pictures(alone, self.config.size))
                differ = distances(maps, again).mean() / within(photographs, side.kinds[alone])
                found[f"differ_{name}"] = [float(differ)]
        return found

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        return "\n".join(f"{name}: " + " ".join(f"{value:.3f}" for value in row) for name, row in scores.items())

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of one sentence each; every column of one noise."""
        side = next(iter(self.sides.values()))
        texts = list(SHOWN_TEXTS) if self.config.subject == "flowers" else self.asked(side, SHOWN)[1]
        made = self._made(network, [text for text in texts for _ in range(SHOWN)], repeated=SHOWN)
        return contact_sheet(made.unflatten(0, (len(texts), SHOWN)))

    @property
    def _net(self) -> TextToImage:
        network = self.networks["imagine"]
        assert isinstance(network, TextToImage)
        return network

    def _seen(self, image: Tensor) -> Tensor:
        return augment(image) if self.config.augmented else image

    def _wrong(self, index: int, said: str, rng: np.random.Generator) -> str:
        """Give a sentence that does not fit a picture."""
        other = captions.recolored(said, rng) if rng.random() < self.config.recolored else None
        # Of a few hundred descriptions, a draw is wrong at the first try nearly always.
        while other is None:
            chosen = int(rng.integers(len(self.train)))
            if self.train.descriptions[chosen] != self.train.descriptions[index]:
                other = self.train.sentences([chosen], rng)[0]
        return other

    def _made(self, network: nn.Module, texts: list[str], seed: int = 0, repeated: int = 0) -> Tensor:
        assert isinstance(network, TextToImage)
        return _made(network, texts, seed, repeated)


class TrainStyleEncoder(_Worded):
    """The recipe of S: the generator stays as it is. One device only."""

    architecture = "TextToImage"

    def __init__(self, config: StyleEncoderConfig) -> None:
        self.config = config
        self.name = "style-encoder"
        made = load(config.imagine, {"TextToImage": TextToImage})
        header = open_weights(config.imagine).header
        assert header is not None  # load would have refused
        self.arguments = {**header.arguments, "style_width": config.style_width}
        torch.manual_seed(config.seed)
        imagine = TextToImage(**self.arguments)
        imagine.load_state_dict(made.state_dict(), strict=False)
        imagine.requires_grad_(False)
        assert imagine.style is not None
        imagine.style.requires_grad_(True)
        self.networks: dict[str, nn.Module] = {"imagine": imagine}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, of S alone."""
        return {"imagine": Adam(_style(self._net).parameters(), lr=self.config.learning_rate, betas=(0.5, 0.99))}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Sentences and noise."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        chosen = rng.integers(len(self.train), size=self.config.batch_size)
        drawn = torch.Generator().manual_seed(int(rng.integers(2**62)))
        tokens = self._net.text.tokens(self.train.sentences(chosen, rng))
        return tokens, self._net.draw(len(chosen), drawn)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """S is to find the noise again: ``|z - S(G(z, t))|^2``, section 4.4."""
        tokens, z = batch
        net = self._net
        net.generator.eval()  # what is shipped is what S learns to turn round
        with training.fabric.autocast():
            with torch.no_grad():
                made = net(z, net.text(tokens)).clamp(0, 1)
            loss = functional.mse_loss(_style(net)(made), z)
        training.descend("imagine", loss)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Error of the noise, 1 for a guess of 0, and how well pairs of one style are told from others."""
        assert isinstance(network, TextToImage)
        same, z = self._pairs(network, WATCHED)
        return {"error": float(functional.mse_loss(same[0], z)), "auc": verification_auc(*same)}

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """The same of more pictures; and whether the sentence's colour is kept with the style of held-out pictures."""
        assert isinstance(network, TextToImage)
        same, z = self._pairs(network, MEASURED)
        found: dict[str, Any] = {"error": [float(functional.mse_loss(same[0], z))], "auc": [verification_auc(*same)]}
        for name, side in self.sides.items():
            if side.colors[0]:
                chosen, texts = self.asked(side, MEASURED)
                styles = side.pictures(np.roll(chosen, len(chosen) // 2), network.size)
                z = _style(network)(styles.to(network.condense.weight.device)).cpu()
                shown = color_shown(made(network, texts, z), [side.colors[i] for i in chosen])
                found[f"color_{name}"] = _interval(shown)
        return found

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        return "\n".join(f"{name}: " + " ".join(f"{value:.3f}" for value in row) for name, row in scores.items())

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """The first row: photographs that give the style; below, one sentence a row."""
        assert isinstance(network, TextToImage)
        side = next(iter(self.sides.values()))
        chosen, texts = self.asked(side, SHOWN)
        texts = list(SHOWN_TEXTS) if self.config.subject == "flowers" else texts
        styles = side.pictures(chosen, network.size)
        z = _style(network)(styles.to(network.condense.weight.device))
        rows = [network(z, network.encode([text] * SHOWN)).float().cpu() for text in texts]
        return contact_sheet(torch.stack([styles, *rows]))

    @property
    def _net(self) -> TextToImage:
        network = self.networks["imagine"]
        assert isinstance(network, TextToImage)
        return network

    def _pairs(self, network: TextToImage, count: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """S of pictures of one noise and two sentences, and the noise."""
        side = list(self.sides.values())[-1]
        z = network.draw(count, torch.Generator().manual_seed(count))
        texts = self.asked(side, count)[1]
        half = count // 2  # in the order of names neighbours are of one class
        return style_pairs(network, texts, texts[half:] + texts[:half], z), z


def between(sentences: Tensor) -> Tensor:
    """Put what lies between two sentences in the place of the first half of a batch (N, text size): equation 5.

    Examples
    --------
    >>> between(torch.tensor([[0.0], [2.0], [4.0], [8.0]])).flatten().tolist()
    [2.0, 5.0, 4.0, 8.0]
    """
    half = len(sentences) // 2
    mixed = BETWEEN * sentences[:half] + (1 - BETWEEN) * sentences[half : 2 * half]
    return torch.cat([mixed, sentences[half:]])


def read_sides(config: Any) -> dict[str, Captioned]:
    """Read what is measured on: new pictures of known classes, where there are any, and of unknown ones.

    Parameters
    ----------
    config : TextEncoderConfig, ImagineConfig or StyleEncoderConfig

    Raises
    ------
    InputError
        The set or the folder is missing.
    """
    if config.photographs or config.subject == "emoji":
        return {"unseen": _read(config, "unseen")}
    return {"seen": _read(config, "seen"), "unseen": _read(config, "unseen")}


def _read(config: Any, side: Literal["train", "seen", "unseen"]) -> Captioned:
    if config.photographs:
        return captions.read_captioned(Path(config.photographs), side)
    read = captions.read_flowers if config.subject == "flowers" else captions.read_emoji
    return read(data.data_folder(config.data), side)


@torch.no_grad()
def made(network: TextToImage, texts: list[str], z: Tensor) -> Tensor:
    """Make a picture of each sentence and its noise (N, noise), in parts of 64: (N, 3, S, S), on the CPU."""
    device, parts = network.condense.weight.device, []
    for start in range(0, len(texts), 64):
        here = slice(start, start + 64)
        parts.append(network(z[here].to(device), network.encode(texts[here])).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def style_pairs(network: TextToImage, texts: Sequence[str], others: Sequence[str], z: Tensor) -> tuple[Tensor, Tensor]:
    """Give S of pictures of one noise and two sentences: twice (N, noise), the rows of both belong together.

    Parameters
    ----------
    network : TextToImage
        With a style encoder.
    texts, others : sequence of str
        The two sentences of each row.
    z : Tensor of float32, (N, noise)
    """
    device = network.condense.weight.device

    def styles(said: list[str]) -> Tensor:
        parts = made(network, said, z).clamp(0, 1).split(64)
        return torch.cat([_style(network)(part.to(device)).cpu() for part in parts])

    return styles(list(texts)), styles(list(others))


def color_shown(
    images: Tensor,
    asked: list[tuple[str, ...]],
    rule: Callable[[NDArray[np.uint8]], list[str]] = petal_colors,
) -> NDArray[np.float64]:
    """Say of each picture whether its petals' commonest colour is one of those asked for: 1 or 0.

    Parameters
    ----------
    images : Tensor of float32, (N, 3, H, W)
        About 0..1; they are enlarged to a side of `JUDGED` pixels.
    asked : list of tuple of str
        One of each picture, none of them empty.
    rule : callable
        Names the colours of (H, W, 3), the commonest first.
    """
    if images.shape[-1] < JUDGED:
        images = functional.interpolate(images, (JUDGED, JUDGED), mode="bicubic", align_corners=False)
    pixels = (255 * images.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    shown = [rule(image) for image in pixels]
    return np.array([float(bool(names) and names[0] in wanted) for names, wanted in zip(shown, asked, strict=True)])


@torch.no_grad()
def retrieved(
    judge: JointEmbedding, maps: Tensor, texts: list[str], descriptions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Say of each picture whether its own sentence is the best of ten for it: 1 or 0; chance is .1.

    Parameters
    ----------
    judge : JointEmbedding
    maps : Tensor, (N, POOLED)
        Of the pictures.
    texts : list of str
        Of each.
    descriptions : ndarray, (N,)
        Sentences of the same number are not put beside each other.

    Raises
    ------
    InputError
        There are fewer than ten descriptions.
    """
    if len(set(descriptions)) < CHOICES:
        raise InputError(f"got {len(set(descriptions))} descriptions; expected at least {CHOICES} to choose among")
    device = next(judge.parameters()).device
    scores = judge(maps.to(device), judge.text.tokens(texts).to(device)).cpu()
    rng = np.random.default_rng(0)
    hits = []
    for i, own in enumerate(descriptions):
        others = rng.choice(np.nonzero(descriptions != own)[0], CHOICES - 1, replace=False)
        hits.append(float(scores[i, i] > scores[i, others].max()))
    return np.array(hits)


def verification_auc(first: Tensor, second: Tensor) -> float:
    """How surely pairs (row i of both) are told from other pairs by their cosine: area under the curve, .5 by chance.

    Examples
    --------
    >>> verification_auc(torch.eye(3), torch.eye(3))
    1.0
    """
    cosines = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T
    return float(told_apart(cosines.diagonal(), cosines[~torch.eye(len(cosines), dtype=torch.bool)]).mean())


def told_apart(same: Tensor, others: Tensor) -> NDArray[np.float64]:
    """Give the share of `others` (M,) that score lower, for each score of a pair that belongs together: (N,).

    Equal scores count half; the mean is the area under the curve.

    Examples
    --------
    >>> told_apart(torch.tensor([0.9, 0.2]), torch.tensor([0.1, 0.2, 0.3, 0.4])).tolist()
    [1.0, 0.375]
    """
    ranked = others.sort().values
    below, not_above = (torch.searchsorted(ranked, same.contiguous(), right=right) for right in (False, True))
    return ((below + not_above).double() / (2 * len(ranked))).numpy()


def within(maps: Tensor, kinds: NDArray[np.int64]) -> float:
    """Give the mean distance between two pictures of one class: of each and the next of its class.

    Parameters
    ----------
    maps : Tensor, (N, d)
        Of all pictures; somewhere two are of one class.
    kinds : ndarray, (N,)
    """
    found = []
    for kind in set(kinds):
        members = maps[kinds == kind]
        if len(members) > 1:
            found.append(distances(members, members.roll(1, 0)))
    return float(torch.cat(found).mean())


def _interval(values: NDArray[np.float64]) -> list[float]:
    found = bootstrap(values)
    return [found.value, found.low, found.high]


def _style(network: TextToImage) -> nn.Module:
    assert network.style is not None
    return network.style


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Give the root of the mean squared difference of each two rows, (N,)."""
    return (first - second).square().mean(1).sqrt()


@torch.no_grad()
def pooled(features: nn.Module, images: Tensor) -> Tensor:
    """Give the pooled maps of pictures of about 0..1, on the CPU."""
    device = next(features.parameters()).device
    return torch.cat([pooled_maps(features, part.to(device).clamp(0, 1)).cpu() for part in images.split(64)])


@torch.no_grad()
def _made(network: TextToImage, texts: list[str], seed: int, repeated: int) -> Tensor:
    """Make a picture of each sentence; with `repeated`, the same noises again after so many."""
    z = network.draw(repeated or len(texts), torch.Generator().manual_seed(seed))
    return made(network, texts, z.repeat(len(texts) // len(z), 1))
