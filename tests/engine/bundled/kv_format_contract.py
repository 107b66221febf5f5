"""`KVFormatContract`: what every way to store keys and values must keep. Subclass it and say its name and its error."""

from pathlib import Path

import pytest
import torch
from random_models import save_random_model
from torch import Tensor

from engine.bundled.kv_cache import KVCache, block_bytes
from engine.bundled.kv_formats import KV_FORMATS
from engine.bundled.model_config import load_model_config
from engine.config import KvCacheFormat


def heads_of_every_size() -> Tensor:
    """[24, 2, 16]: magnitudes from 1e-6 to 1e3, and heads of zeros."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.cat((torch.logspace(-6, 3, 23), torch.zeros(1))).view(-1, 1, 1)
    return torch.randn(24, 2, 16, generator=generator) * sizes


class KVFormatContract:
    """Needs `name`, `max_error(heads)` (elementwise, float32) and `bytes_per_head` of 16 float32 numbers."""

    name: KvCacheFormat
    bytes_per_head: int

    def max_error(self, heads: Tensor) -> Tensor:
        raise NotImplementedError

    def test_what_is_read_is_near_what_was_written(self) -> None:
        heads, form = heads_of_every_size(), KV_FORMATS[self.name]
        decoded = form.decode(form.encode(heads), torch.float32)
        assert ((decoded - heads).abs() <= self.max_error(heads)).all()

    def test_a_head_is_stored_as_it_would_be_alone(self) -> None:
        heads, form = heads_of_every_size(), KV_FORMATS[self.name]
        together = form.decode(form.encode(heads), torch.float32)
        alone = [form.decode(form.encode(head), torch.float32) for head in heads.flatten(0, 1)]
        assert torch.equal(together.flatten(0, 1), torch.stack(alone))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_blocks_are_read_where_they_were_written(self, tmp_path: Path, dtype: torch.dtype) -> None:
        model = load_model_config(save_random_model(tmp_path / "model"))
        cache = KVCache(model, 6, 4, dtype=dtype, device=torch.device("cpu"), kv_format=self.name)
        key_value = torch.randn(5, 2 * model.num_kv_heads, model.head_dim).to(dtype)
        cache.write(1, torch.tensor([20, 21, 22, 23, 8]), key_value)  # block 5, and the first place of block 2
        form = KV_FORMATS[self.name]
        expected = form.decode(form.encode(key_value), dtype).transpose(0, 1)
        found = cache.read(1, torch.tensor([5, 2, 0])).clone()
        assert found.dtype == dtype
        assert torch.equal(found[:, 0], expected[:, :4])
        assert torch.equal(found[:, 1, :1], expected[:, 4:])
        assert not found[:, 2].any()
        assert not cache.read(0, torch.tensor([5])).any(), "another layer"

    def test_a_block_takes_the_bytes_it_says(self, tmp_path: Path) -> None:
        model = load_model_config(save_random_model(tmp_path / "model"))
        cache = KVCache(model, 6, 4, dtype=torch.float32, device=torch.device("cpu"), kv_format=self.name)
        held = sum(t.numel() * t.element_size() for t in (*cache._codes, *cache._scales))
        per_block = 3 * 2 * 2 * 4 * self.bytes_per_head  # layers, keys and values, heads, tokens
        assert block_bytes(model, torch.float32, 4, self.name) == per_block
        assert held == 6 * per_block
