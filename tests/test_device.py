import os
import subprocess
import sys

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
    assert threads() == before
    with pytest.raises(InputError, match="at least 1"), limit_threads(0):
        pass


def in_new_process(code):
    """Run code where torch is not loaded and has a default of its own, 1 thread; give back what it prints."""
    command = [sys.executable, "-c", "import sys\nfrom velatura.device import *\n" + code]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_torch_keeps_its_threads_without_a_limit():
    code = "import torch\nresolve_device('cpu')\nprint(torch.get_num_threads())"
    assert in_new_process(code) == ["1"]


def test_torchs_threads_are_limited_inside_the_block_only():
    code = """
import torch
torch.set_num_threads(4)
with limit_threads(1):
    print(torch.get_num_threads())
    with limit_threads(2):
        print(torch.get_num_threads())
    resolve_device("cpu")
    print(torch.get_num_threads())
print(torch.get_num_threads())
"""
    assert in_new_process(code) == ["1", "2", "1", "4"]


def test_torch_that_is_loaded_inside_the_block_is_limited_too():
    code = """
with limit_threads(3):
    assert "torch" not in sys.modules
    with limit_threads(2):
        resolve_device("cpu")
        import torch
        print(torch.get_num_threads())
    print(torch.get_num_threads())
print(torch.get_num_threads())
"""
    assert in_new_process(code) == ["2", "3", "1"]


def test_half_precision_is_native_or_none():
    assert half_precision(torch.device("cpu")) in (None, torch.bfloat16)
    assert half_precision(torch.device("mps")) == torch.float16


def test_gradients_are_never_computed_in_float16():
    assert half_precision(torch.device("mps"), gradients=True) is None
    assert half_precision(torch.device("cpu"), gradients=True) == half_precision(torch.device("cpu"))


def test_blocks_of_several_threads_may_end_in_any_order():
    before = threads(), torch.get_num_threads()
    first, second = limit_threads(1), limit_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads() == 1
    second.__exit__(None, None, None)
    assert (threads(), torch.get_num_threads()) == before
