"""`python -m engine.bundled.parallel.worker`: one rank above 0; computes what rank 0 sends until it hangs up.

Does not know requests.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from engine.bundled.batch import Moves
from engine.bundled.errors import BundledEngineError
from engine.bundled.parallel.ranks import Start, threads_of_rank
from engine.bundled.parallel.shard import Shard
from engine.bundled.parallel.sharded_model import ShardLoader
from engine.bundled.server.parent_death import signal_on_parent_death
from engine.config import load_engine_config


def main(argv: Sequence[str] | None = None) -> int:
    """0 when rank 0 hung up, 1 after an error (whose traceback is on stderr)."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    signal_on_parent_death(signal.SIGKILL, parent_pid=options.parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; rank 0 says when to end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(options.connection)
    config = load_engine_config(options.config)
    shard = Shard(rank=options.rank, size=config.tensor_parallel_size)
    torch.set_num_threads(threads_of_rank(config.num_threads, shard.size))
    device = torch.device("cuda", options.rank) if torch.cuda.is_available() else torch.device("cpu")
    try:
        loader = ShardLoader(config, shard, device, max_model_len=options.max_model_len)
    except BundledEngineError as error:
        connection.send(error)
        return 1
    connection.send(None)
    try:
        start: Start = connection.recv()
        model = loader.join(num_blocks=start.num_blocks, rendezvous=options.rendezvous)
        with torch.inference_mode():
            while True:
                message = connection.recv()
                if isinstance(message, Moves):
                    model.move(message)
                else:
                    model.forward(message)
    except (EOFError, ConnectionResetError):
        return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="engine.bundled.parallel.worker", description=__doc__)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--rendezvous", required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--connection", type=int, required=True, help="file descriptor of the pipe to rank 0")
    parser.add_argument("--parent-pid", type=int, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
