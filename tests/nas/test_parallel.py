"""Two processes search together and end with one architecture."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

from bilevel_nas import parallel  # noqa: E402

SCRIPT = """
import sys
rank, port, here, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
sys.path.insert(0, here)
import torch
import bilevel_core as bl
from bilevel_nas import parallel
from small import problem

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
small = problem("cell201", {"nodes": 3, "stages": 1}, budget=6.0, final_epochs=0)
lines, differing, mean = [], 0, parallel.mean


def watched(values):
    global differing
    together = mean(values)
    differing += not torch.equal(values, together)
    return together


parallel.mean = watched  # the ranks' own gradients are of other batches, or there would be nothing to agree on
for preset in ("darts1", "auxiliary"):
    options = {"preset": preset, "batch": 16, "every": 2}
    options |= {"hyper": "aux:2", "second_order_batch": 16} if preset == "auxiliary" else {}
    details = bl.solve(small, "supernet", options, verify=False).details
    told = ("architecture", "entropy", "supernet_accuracy", "architecture_eigenvalue")
    lines.append(" ".join(str(details[k]) for k in told))
lines.append(str(parallel.of_first_rank((rank, 5))))
lines.append(str(differing > 10))
try:
    bl.solve(small, "supernet", time_limit=100, verify=False)
except bl.UsageError as error:
    lines.append(str(error))
lines.append(str(parallel.mean_number(float(rank))))
open(out, "w").write(chr(10).join(lines))
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_ranks_agree(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = str(Path(__file__).parent)
    ranks = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(k), str(port), here, str(tmp_path / str(k))])
        for k in range(2)
    ]
    assert [p.wait(timeout=120) for p in ranks] == [0, 0]
    first, second = ((tmp_path / str(k)).read_text() for k in (0, 1))
    assert first == second
    *_, of_first, different, refused, mean = first.splitlines()
    assert of_first == "(0, 5)"
    assert different == "True"
    assert "time limit" in refused
    assert mean == "0.5"


def test_without_a_process_group_nothing_changes() -> None:
    values = torch.ones(3)
    assert parallel.mean(values) is values
    assert parallel.rank() == 0
    assert parallel.ranks() == 1
    assert parallel.of_first_rank((3, 1)) == (3, 1)
    assert parallel.mean_number(2.0) == 2.0
