"""Two processes search together and end with one architecture."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

from bilevel_nas import parallel  # noqa: E402

from .small import problem  # noqa: E402


def worker(rank: int, port: int, folder: str) -> None:
    import bilevel_core as bl

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    small = problem("cell201", {"nodes": 3, "stages": 1}, budget=8.0, final_epochs=0)
    seen: list[str] = []
    for preset in ("darts1", "auxiliary"):
        options = {"preset": preset, "batch": 16, "second_order_batch": 16, "every": 2}
        options |= {"hyper": "aux:2"} if preset == "auxiliary" else {}
        result = bl.solve(small, "supernet", options, verify=False)
        told = ("architecture", "entropy", "supernet_accuracy", "architecture_eigenvalue")
        seen.append(" ".join(str(result.details[k]) for k in told))
    # Each rank drew other batches.
    own = parallel.mean_number(float(rank))
    Path(folder, str(rank)).write_text("\n".join([*seen, str(own)]))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_ranks_agree(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    first, second = ((tmp_path / str(k)).read_text() for k in (0, 1))
    assert first == second
    assert first.splitlines()[-1] == "0.5"


def test_without_a_process_group_nothing_changes() -> None:
    values = torch.ones(3)
    assert parallel.mean(values) is values
    assert parallel.rank() == 0
    assert parallel.mean_number(2.0) == 2.0
