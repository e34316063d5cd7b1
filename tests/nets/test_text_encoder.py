"""Sentences as numbers: what their neighbours do not change, and the loss against its equations."""

from __future__ import annotations

import pytest
import torch

from velatura.nets.text_encoder import POOLED, JointEmbedding, TextEncoder, structured_loss, words_of

WORDS = ["a", "blue", "centre", "flower", "red", "with", "yellow"]


@pytest.fixture(params=["words", "characters"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(WORDS, request.param, embedding=8, width=8, size=16).eval()


@torch.no_grad()
def test_a_sentence_does_not_notice_its_neighbours(encoder: TextEncoder):
    alone = encoder(encoder.tokens(["a red flower"]))
    among = encoder(encoder.tokens(["a red flower", "a red flower with a yellow centre", "blue"]))
    assert torch.allclose(alone[0], among[0], atol=1e-5)
    assert torch.allclose(among.square().mean(1), torch.ones(3), atol=1e-4)


@torch.no_grad()
def test_order_matters_and_case_does_not(encoder: TextEncoder):
    first, second, same = encoder(
        encoder.tokens(["red flower, yellow centre", "yellow flower, red centre", "RED flower, yellow centre"])
    )
    assert (first - second).abs().max() > 1e-3
    assert torch.allclose(first, same, atol=1e-5)


def test_unknown_words_are_named_once(encoder: TextEncoder):
    assert encoder.unknown("a mauve flower, a mauve centre of basalt") == ["mauve", "of", "basalt"]


def test_unknown_and_empty_texts_have_tokens():
    net = TextEncoder(WORDS, embedding=8, width=8, size=16)
    assert net.tokens(["", "red basalt"]).tolist() == [[1, 0], [6, 1]]
    assert net.tokens(["red " * 500]).shape == (1, 64)
    assert net(net.tokens([""])).isfinite().all()


def test_an_empty_vocabulary_is_refused():
    with pytest.raises(ValueError, match="empty vocabulary"):
        TextEncoder([])


def test_words():
    assert words_of("Été: 2 star-shaped o'clock_ flowers!") == ["été", "2", "star", "shaped", "o'clock", "flowers"]


def test_structured_loss_is_that_of_its_sums():
    torch.manual_seed(1)
    scores, kinds = torch.randn(6, 6), torch.tensor([0, 0, 1, 2, 2, 3])
    total, count = 0.0, 0
    for i in range(6):
        for j in range(6):
            if kinds[i] != kinds[j]:
                total += max(0.0, float(1 + scores[i, j] - scores[i, i]))  # another sentence of this picture
                total += max(0.0, float(1 + scores[i, j] - scores[j, j]))  # another picture of this sentence
                count += 1
    found = structured_loss(scores, kinds[:, None] == kinds[None])
    assert float(found) == pytest.approx(total / count, rel=1e-5)


def test_the_joint_embedding_learns_pairs():
    torch.manual_seed(0)
    text = {"vocabulary": WORDS, "embedding": 8, "width": 8, "size": 16}
    net = JointEmbedding(text, {"width": 16, "size": 16, "dropout": 0.0})
    maps, tokens = torch.randn(3, POOLED), net.text.tokens(["red flower", "blue flower", "a yellow flower"])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        structured_loss(net(maps, tokens), torch.eye(3, dtype=torch.bool)).backward()
        optimizer.step()
    assert net(maps, tokens).argmax(1).tolist() == [0, 1, 2]
