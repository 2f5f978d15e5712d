"""How does a run repeat bit by bit? A fixed seed, number of threads, and deterministic kernels."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.utils.deterministic


@contextmanager
def cpu_threads(n_threads: int) -> Iterator[None]:
    """Compute with ``n_threads`` CPU threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def repeatable(seed: int, n_threads: int, device: torch.device) -> Iterator[None]:
    """
    Make what runs inside depend on its inputs and the seed alone; torch's global state comes back after.

    On the CPU kernels are deterministic; on cuda sums may differ in the last bits.
    """
    # Like torch.use_deterministic_algorithms, without importing the compiler: seconds in each process.
    before = torch.get_deterministic_debug_mode()
    fills_before = torch.utils.deterministic.fill_uninitialized_memory
    cuda = [device] if device.type == "cuda" else []
    sparse_checks = torch.sparse.check_sparse_tensor_invariants(enable=False)
    with cpu_threads(n_threads), torch.random.fork_rng(devices=cuda), sparse_checks:
        torch.manual_seed(seed)
        torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before)
            torch.utils.deterministic.fill_uninitialized_memory = fills_before
