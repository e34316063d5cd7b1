import os

import pytest
import torch

from velatura.device import half_precision, limit_threads, resolve_device, threads
from velatura.errors import InputError


def test_auto_is_a_device_that_computes():
    device = resolve_device()
    assert (torch.ones(2, device=device) + 1).sum().item() == 4


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "", "cuda0"])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match="unknown device"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_refused():
    with pytest.raises(InputError, match="--device auto"):
        resolve_device("cuda")


def test_threads_are_limited_inside_the_block_only():
    before = threads()
    assert 1 <= before <= (os.cpu_count() or 1)
    with limit_threads(1):
        assert threads() == 1
        with limit_threads(None):
            assert threads() == 1
        resolve_device("cpu")
        assert torch.get_num_threads() == 1
    assert threads() == before
    with pytest.raises(InputError, match="at least 1"), limit_threads(0):
        pass


def test_half_precision_is_native_or_none():
    assert half_precision(torch.device("cpu")) in (None, torch.bfloat16)
