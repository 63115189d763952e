"""What each worker of the torchrun test runs: an all-reduce over all ranks, whose outcome it writes down."""

import socket
import sys
from pathlib import Path

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
value = torch.tensor(2.0 ** dist.get_rank())
dist.all_reduce(value)
Path(sys.argv[1], f"rank{dist.get_rank()}").write_text(f"{socket.gethostname()} {value.item():g}")
dist.destroy_process_group()
