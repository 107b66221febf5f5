"""The bundled server as a program with flags, so that `CommandBackend` has a real server to start.

python flag_server.py --model DIR --port N [--max-num-seqs N] [--weights FORMAT] [--eager] [--break HOW]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from engine.bundled.server.command import main
from engine.config import EngineConfig, dump_engine_config


def serve() -> int:
    parser = argparse.ArgumentParser(prog="flag_server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default=None)
    parser.add_argument("--max-num-seqs", type=int, default=8)
    parser.add_argument("--weights", default="bf16")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--break", dest="fault", choices=("memory", "port", "sleep"))
    options = parser.parse_args()
    if options.fault == "sleep":
        time.sleep(60)
    if options.fault:
        print(
            {"memory": "RuntimeError: CUDA out of memory", "port": "[Errno 98] Address already in use"}[options.fault]
        )
        return 1
    config = EngineConfig.model_validate(
        {
            "model": options.model,
            "num_threads": 1,
            "max_num_seqs": options.max_num_seqs,
            "quantization": {"weights": options.weights},
            "enforce_eager": options.eager,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump_engine_config(config))
        name = ["--served-model-name", options.name] if options.name else []
        return main(["--config", str(file), "--port", options.port, "--host", options.host, *name])


if __name__ == "__main__":
    sys.exit(serve())
