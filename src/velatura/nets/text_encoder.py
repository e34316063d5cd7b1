"""Numbers for sentences that fit numbers for pictures: Reed's structured joint embedding.

Paper: Reed, Akata, Schiele, Lee, "Learning deep representations of fine-grained visual descriptions", 2016
(arXiv 1605.05395), sections 3 and 4; its sentences' numbers are what Reed et al. 2016 (arXiv 1605.05396) make pictures
from.

Differs from the papers: words are read by a recurrent network (the paper's Word-CNN-RNN, without the convolutions, in
both directions); pictures are seen by our own features in place of GoogLeNet; all embeddings have one length, so that
scores are cosines times a constant. ``form="characters"`` is the paper's Char-CNN-RNN, narrower.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

__all__ = ["JointEmbedding", "PictureEncoder", "TextEncoder", "pooled_maps", "structured_loss", "words_of"]

PADDING, UNKNOWN = 0, 1  # tokens that are no word
LONGEST = 64  # words of a sentence; what comes after is not read
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+=<>()[]{} "  # section 4, and the blank
CHARACTERS = 201  # of a sentence, section 4
LAYERS = ("stride4", "stride8", "stride16")  # of our features
POOLED = 2 * (256 + 480 + 512)  # their channels, on the whole picture and on its middle
SHARPNESS = 10.0  # scores are -10..10, the margin of equation 4 is 1


def words_of(text: str) -> list[str]:
    """Split a sentence into words: letters and digits, in lower case.

    Examples
    --------
    >>> words_of("A star-shaped flower, its centre's RED")
    ['a', 'star', 'shaped', 'flower', 'its', "centre's", 'red']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


class TextEncoder(nn.Module):
    """From sentences to numbers.

    Parameters
    ----------
    vocabulary : sequence of str
        The words it knows, in lower case: part of the arguments, so that a file of weights holds all it needs.
    form : {"words", "characters"}
        What it reads.
    embedding : int
        Numbers of each word, or channels of the convolutions over characters.
    width : int
        Hidden units of the recurrent network, in each direction.
    size : int
        How many numbers a sentence becomes; 1024 in the paper.

    Raises
    ------
    ValueError
        No words.

    Examples
    --------
    >>> net = TextEncoder(["a", "flower", "red"], embedding=8, width=8, size=16).eval()
    >>> net(net.tokens(["a red flower", "red"])).shape
    torch.Size([2, 16])
    >>> net.unknown("A mauve flower")
    ['mauve']
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        form: Literal["words", "characters"] = "words",
        embedding: int = 96,
        width: int = 128,
        size: int = 256,
    ) -> None:
        super().__init__()
        if not vocabulary:
            raise ValueError("got an empty vocabulary; expected at least one word")
        self.vocabulary, self.form, self.size = tuple(vocabulary), form, size
        self._numbers = {word: i for i, word in enumerate(self.vocabulary, start=2)}
        if form == "characters":
            self.layers = nn.Sequential(
                nn.Conv1d(len(ALPHABET) + 1, embedding, 7, padding=3),
                nn.ReLU(),
                nn.MaxPool1d(3),
                nn.Conv1d(embedding, embedding, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool1d(3),
            )
        else:
            self.words = nn.Embedding(len(self.vocabulary) + 2, embedding, padding_idx=PADDING)
        self.recurrent = nn.GRU(embedding, width, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(2 * width, size)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Give sentences as numbers of words or characters, (N, longest) int64, filled up with 0."""
        if self.form == "characters":
            rows = [[ALPHABET.find(letter) + 1 for letter in text.lower()[:CHARACTERS]] for text in texts]
            longest = CHARACTERS
        else:
            rows = [
                [self._numbers.get(word, UNKNOWN) for word in words_of(text)[:LONGEST]] or [UNKNOWN] for text in texts
            ]
            longest = max(map(len, rows))
        return torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])

    def unknown(self, text: str) -> list[str]:
        """Name the words of a sentence that it does not know, each once."""
        return list(dict.fromkeys(word for word in words_of(text) if word not in self._numbers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed sentences.

        Parameters
        ----------
        tokens : Tensor of int64, (N, L)
            Of `tokens`.

        Returns
        -------
        Tensor of float32, (N, size)
            With a mean square of 1.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            if self.form == "characters":
                letters = functional.one_hot(tokens, len(ALPHABET) + 1).float()
                hidden = self.recurrent(self.layers(letters.transpose(1, 2)).transpose(1, 2))[0].mean(1)
            else:
                lengths = (tokens != PADDING).sum(1)
                # Packed: a sentence must not notice how long its neighbours in the batch are.
                packed = pack_padded_sequence(self.words(tokens), lengths.cpu(), True, enforce_sorted=False)
                states = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)[0]
                hidden = states.sum(1) / lengths[:, None]
            return _unit(self.leave(hidden))


class PictureEncoder(nn.Module):
    """From pooled maps of our features to numbers that fit a sentence's: see `pooled_maps`.

    Parameters
    ----------
    width : int
        Hidden units.
    size : int
        As of `TextEncoder`.
    dropout : float
        Share of the maps and of the hidden units that are left out in training.

    Examples
    --------
    >>> PictureEncoder(size=16).eval()(torch.randn(2, POOLED)).shape
    torch.Size([2, 16])
    """

    def __init__(self, width: int = 384, size: int = 256, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(POOLED, elementwise_affine=False),
            nn.Dropout(dropout),
            nn.Linear(POOLED, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, size),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Embed pictures (N, POOLED): (N, size) with a mean square of 1."""
        return _unit(self.layers(maps).float())


class JointEmbedding(nn.Module):
    """Both encoders: the score of a picture and a sentence is large where they fit (equation 1).

    Parameters
    ----------
    text, picture : mapping
        Arguments of `TextEncoder` and `PictureEncoder`.

    Examples
    --------
    >>> net = JointEmbedding({"vocabulary": ["red"], "size": 32}, {"size": 32}).eval()
    >>> scores = net(torch.randn(3, POOLED), net.text.tokens(["red", "blue"]))
    >>> scores.shape, bool(scores.abs().max() <= 10.001)
    (torch.Size([3, 2]), True)
    """

    def __init__(self, text: Mapping[str, Any], picture: Mapping[str, Any]) -> None:
        super().__init__()
        self.text, self.picture = TextEncoder(**text), PictureEncoder(**picture)

    def forward(self, maps: Tensor, tokens: Tensor) -> Tensor:
        """Score pictures (N, POOLED) against sentences (M, L): (N, M), -10..10."""
        sentences = self.text(tokens)
        return SHARPNESS / sentences.shape[1] * self.picture(maps) @ sentences.T


def pooled_maps(features: nn.Module, image: Tensor) -> Tensor:
    """Give the means of features' maps, on the whole of pictures and on their middle.

    Parameters
    ----------
    features : velatura.nets.features.Features
    image : Tensor of float32, (N, 3, H, W)
        0..1, at least 48 x 48 pixels.

    Returns
    -------
    Tensor of float32, (N, POOLED)
    """
    parts = []
    for found in features(image, LAYERS).values():
        height, width = found.shape[2:]
        middle = found[..., height // 4 : height - height // 4, width // 4 : width - width // 4]
        parts += [found.mean((2, 3)), middle.mean((2, 3))]
    return torch.cat(parts, dim=1).float()


def structured_loss(scores: Tensor, alike: Tensor) -> Tensor:
    """Say how far right pairs are from scoring 1 more than wrong ones, both ways (equations 2 to 4).

    Picture n pays ``max(0, 1 + F(v_n, t_m) - F(v_n, t_n))`` for the sentence of another class, a sentence likewise for
    pictures.

    Differs from the paper: the mean over the batch's other classes, not the largest: of captions that a rule made some
    are wrong, and the largest would be theirs.

    Parameters
    ----------
    scores : Tensor, (N, N)
        Of pictures (rows) and sentences; the diagonal holds the pairs.
    alike : Tensor of bool, (N, N)
        Where picture and sentence are of one class, so that nothing is to be told apart.

    Examples
    --------
    >>> float(structured_loss(5 * torch.eye(3), torch.eye(3, dtype=torch.bool)))
    0.0
    """
    right = scores.diagonal()
    wrong = (~alike).float()
    rows = functional.relu(1 + scores - right[:, None])
    columns = functional.relu(1 + scores - right[None])
    return ((rows + columns) * wrong).sum() / wrong.sum().clamp_min(1)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
