import numpy as np
import pytest
from PIL import Image

from velatura.errors import InputError
from velatura.studio.store import NoRoom, Store, Unknown, plain_name


def put(store, name="a.png", side=64, seed=0):
    path = store.new_path()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return store.add(path, name)


@pytest.fixture
def store():
    found = Store(30_000)
    yield found
    found.close()


def test_the_oldest_make_way_but_not_what_is_needed(store):
    first, second = put(store), put(store, seed=1)  # 12 kB each
    store.needed = lambda: {first.id}
    third = put(store, seed=2)
    assert store.get(first.id)
    assert store.get(third.id)
    with pytest.raises(Unknown, match="made way for newer ones"):
        store.get(second.id)
    assert not second.path.exists()


def test_what_is_needed_is_never_dropped(store):
    kept = [put(store, seed=seed).id for seed in range(2)]
    store.needed = lambda: kept
    with pytest.raises(NoRoom, match="no room for"):
        put(store, seed=2)
    assert len(list(store.folder.iterdir())) == 2


def test_what_vanishes_while_it_is_counted_has_no_size(store, monkeypatch):
    put(store)
    monkeypatch.setattr("os.walk", lambda folder: [(str(folder), [], ["a.preview"])])
    assert store.bytes == 0


def test_ids_cannot_be_guessed(store):
    ids = {put(store, side=8, seed=seed).id for seed in range(20)}
    assert len(ids) == 20
    assert all(len(key) == 22 for key in ids)


def test_what_is_no_image_leaves_nothing_behind(store):
    path = store.new_path()
    path.write_bytes(b"#!/bin/sh")
    with pytest.raises(InputError, match=r"run\.png is .*expected JPEG"):
        store.add(path, "../run.png")
    assert list(store.folder.iterdir()) == []


def test_the_folder_is_private_and_goes_away():
    store = Store(1000)
    assert store.folder.stat().st_mode & 0o077 == 0
    store.close()
    assert not store.folder.exists()


@pytest.mark.parametrize(
    ("given", "kept"), [("a/b/c.png", "c.png"), ("..", "image"), ("x" * 500, "x" * 120), ('a"b\x00.png', "ab.png")]
)
def test_names_are_plain(given, kept):
    assert plain_name(given) == kept
