"""One rank's part of the target, and rank 0's view of the whole of it.

Does not know requests or drawing.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path

import torch
from torch import Tensor

from engine.bundled.batch import Moves, Span
from engine.bundled.draft_length import max_draft_tokens
from engine.bundled.layer_formats import layer_formats
from engine.bundled.loader import LoadedModel, load_model
from engine.bundled.lora.adapters import hang_adapters
from engine.bundled.paged_model import Forward, PagedModel
from engine.bundled.parallel.communication import Communicator, join_rows
from engine.bundled.parallel.ranks import Ranks, Start
from engine.bundled.parallel.shard import Shard
from engine.bundled.quantization import quantize
from engine.config import EngineConfig


class ShardLoader:
    """Loads a rank's weights and its part of the adapters, then joins the other ranks.

    Raises:
        CheckpointError, UnsupportedError: as `load_model`.
    """

    def __init__(self, config: EngineConfig, shard: Shard, device: torch.device, *, max_model_len: int) -> None:
        self._config, self._shard, self._device = config, shard, device
        self.model: LoadedModel = load_model(
            Path(config.model), dtype=config.dtype, max_positions=max_model_len, device=device, shard=shard
        )
        shape = self.model.config
        quantize(self.model.decoder, layer_formats(config.quantization, shape.stored_formats, shape.num_layers))
        self._adapter_rows = hang_adapters(config, self.model.decoder, device, shard)
        self._communicator: Communicator | None = None

    def join(self, *, num_blocks: int, rendezvous: str) -> PagedModel:
        """Blocks until every rank has come."""
        self._communicator = Communicator(
            self._shard,
            self._device,
            rendezvous=rendezvous,
            number_format=self._config.quantization.communication,
        )
        join_rows(self.model.decoder, self._communicator)
        return PagedModel(
            self.model,
            num_blocks=num_blocks,
            block_size=self._config.block_size,
            max_short_query=1 + max_draft_tokens(self._config.speculative_config),
            kv_format=self._config.quantization.kv_cache,
            adapter_rows=self._adapter_rows,
        )

    def close(self) -> None:
        """Leave the other ranks."""
        if self._communicator is not None:
            self._communicator.close()
            self._communicator = None


class ShardedModel:
    """A `Model` whose passes run on every rank at once."""

    def __init__(self, own: PagedModel, ranks: Ranks) -> None:
        self._own, self._ranks = own, ranks

    def forward(self, spans: Seq[Span], inputs: Tensor | None = None) -> Forward:
        """As `PagedModel.forward`.

        Raises:
            RankDiedError: a rank has gone.
        """
        assert inputs is None, "only drafts start from hidden states, and they are not split"
        self._ranks.send(list(spans))
        try:
            return self._own.forward(spans)
        except RuntimeError as error:
            raise self._ranks.loss() from error

    def logits(self, hidden: Tensor) -> Tensor:
        return self._own.logits(hidden)

    def move(self, moves: Moves) -> None:
        self._ranks.send(moves)
        self._own.move(moves)


class ParallelTarget:
    """The target over all ranks, as the engine on rank 0 builds it: load, then join.

    Args:
        device: rank 0's.
    """

    def __init__(self, config: EngineConfig, device: torch.device, *, max_model_len: int) -> None:
        self._config, self._device, self._max_model_len = config, device, max_model_len
        self._ranks = Ranks(config, max_model_len=max_model_len)
        self._loader: ShardLoader | None = None

    def load(self) -> LoadedModel:
        """Rank 0's part, while the others load theirs.

        Raises:
            CheckpointError, UnsupportedError: as `load_model`.
        """
        shard = Shard(rank=0, size=self._config.tensor_parallel_size)
        self._loader = ShardLoader(self._config, shard, self._device, max_model_len=self._max_model_len)
        return self._loader.model

    def join(self, num_blocks: int) -> ShardedModel:
        """The whole model, once every rank has loaded.

        Raises:
            BundledEngineError, RankDiedError: what kept a rank from it.
        """
        assert self._loader is not None, "load comes first"
        self._ranks.start(Start(num_blocks))
        own = self._loader.join(num_blocks=num_blocks, rendezvous=self._ranks.rendezvous)
        return ShardedModel(own, self._ranks)

    def check_alive(self) -> None:
        """Raises RankDiedError when a rank has gone."""
        self._ranks.check_alive()

    def close(self) -> None:
        """End the other ranks; fine to call twice."""
        self._ranks.close()
        if self._loader is not None:
            self._loader.close()
