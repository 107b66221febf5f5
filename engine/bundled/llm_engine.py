"""`LLMEngine`: requests in, tokens out, one step at a time.

Does not know HTTP or text. Single-threaded: add, abort and step are called from one thread.
"""

from __future__ import annotations

import logging
import time
from functools import cached_property
from pathlib import Path

import torch

from engine.bundled.block_manager import BlockManager
from engine.bundled.draft_length import DraftOutcome
from engine.bundled.errors import (
    BundledEngineError,
    CapacityError,
    CheckpointError,
    RequestError,
    UnsupportedError,
)
from engine.bundled.fused.fused_model import FusedModel
from engine.bundled.fused.library import UnavailableError
from engine.bundled.grammar import GrammarCompiler
from engine.bundled.kv_cache import block_bytes, choose_num_blocks
from engine.bundled.layer_formats import layer_formats
from engine.bundled.loader import LoadedModel
from engine.bundled.lora.adapters import hang_adapters
from engine.bundled.lora.low_rank import AdapterRows
from engine.bundled.model_config import load_model_config
from engine.bundled.model_runner import ModelRunner, StepResult
from engine.bundled.outputs import EngineCounters, FinishReason, RequestOutput, TokenLogprob
from engine.bundled.paged_model import Model
from engine.bundled.parallel.ranks import threads_of_rank
from engine.bundled.parallel.sharded_model import ParallelTarget
from engine.bundled.quantization import quantize
from engine.bundled.resident import ResidentModel
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.scheduler import ScheduledSequence, Scheduler
from engine.bundled.sequence import ANYBODY, Sequence, SequenceStatus, Standing
from engine.bundled.speculation import DraftParts, load_draft_parts, make_proposer
from engine.bundled.step_computation import paged_model
from engine.bundled.step_log import StepLog
from engine.bundled.tokenizer import Tokenizer
from engine.config import EngineConfig

__all__ = [
    "BundledEngineError",
    "CapacityError",
    "CheckpointError",
    "EngineCounters",
    "LLMEngine",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "TokenLogprob",
    "UnsupportedError",
]

_log = logging.getLogger(__name__)


class LLMEngine:
    """A loaded model with its scheduler and KV cache.

    Args:
        device: a torch device name; None takes CUDA when there is one.
        resident: keeps the unquantized weights for the next engine; without it they go once they are quantized.

    Raises:
        CheckpointError, CapacityError, UnsupportedError: the config cannot run here.
    """

    def __init__(
        self, config: EngineConfig, *, device: str | None = None, resident: ResidentModel | None = None
    ) -> None:
        _refuse_unsupported(config)
        torch.set_num_threads(threads_of_rank(config.num_threads, config.tensor_parallel_size))
        self.config = config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.max_model_len = _choose_max_model_len(config)
        self._parallel: ParallelTarget | None = None
        try:
            self._build(config, resident or ResidentModel())
        except BaseException:
            self._leave_ranks()
            raise
        self._sequences: dict[str, Sequence] = {}
        self._counters = EngineCounters(accepted_tokens_per_position=[0] * self.scheduler.draft_length.max_length)
        self._num_added = 0
        self.step_log = StepLog(time.perf_counter())

    def _build(self, config: EngineConfig, resident: ResidentModel) -> None:
        if config.tensor_parallel_size > 1:
            self._parallel = ParallelTarget(config, self.device, max_model_len=self.max_model_len)
            target = self._parallel.load()
        else:
            target = resident.load(
                Path(config.model), dtype=config.dtype, max_positions=self.max_model_len, device=self.device
            )
            shape = target.config
            quantize(target.decoder, layer_formats(config.quantization, shape.stored_formats, shape.num_layers))
        self._adapter_numbers = {name: number for number, name in enumerate(config.lora_modules)}
        draft = load_draft_parts(config.speculative_config, target, max_positions=self.max_model_len)
        self.vocab_size = target.config.vocab_size
        self.eos_token_ids = target.config.eos_token_ids
        self.num_blocks = self._choose_num_blocks(target, draft)
        proposer = make_proposer(config, draft, None if draft.paged is None else self._paged(draft.paged))
        if self._parallel is None:
            model = self._paged(target, hang_adapters(config, target.decoder, self.device))
        else:
            model = self._parallel.join(self.num_blocks)
        self.runner = ModelRunner(model, proposer)
        self.block_manager = BlockManager(
            self.num_blocks, config.block_size, enable_prefix_caching=config.enable_prefix_caching
        )
        self.scheduler = Scheduler(
            config,
            self.block_manager,
            max_model_len=self.max_model_len,
            shares_draft_cache=proposer is not None and proposer.has_cache,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer, read at first use.

        Raises:
            CheckpointError: the folder has none.
        """
        return Tokenizer(Path(self.config.model))

    @cached_property
    def _grammars(self) -> GrammarCompiler:
        return GrammarCompiler(Path(self.config.model), vocab_size=self.vocab_size, eos_token_ids=self.eos_token_ids)

    def add_request(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        params: SamplingParams,
        standing: Standing = ANYBODY,
        *,
        adapter: str | None = None,
    ) -> None:
        """Queue a request, for the base model or for a LoRA adapter of the config.

        Raises:
            RequestError: an unknown adapter, an empty or too long prompt, a token id outside the vocabulary, an id in
                use, a JSON schema that cannot be followed.
        """
        self._check_request(request_id, prompt_token_ids, params)
        if adapter is not None and adapter not in self._adapter_numbers:
            raise RequestError(f"there is no adapter {adapter!r}. Known: {', '.join(self._adapter_numbers) or 'none'}")
        seed = params.seed if params.seed is not None else hash((self.config.seed, self._num_added))
        self._num_added += 1
        grammar = None if params.json_schema is None else self._grammars.compile(params.json_schema)
        sequence = Sequence(
            request_id,
            prompt_token_ids,
            params,
            seed=seed % 2**64,
            eos=self.eos_token_ids,
            grammar=grammar,
            standing=standing,
            adapter=-1 if adapter is None else self._adapter_numbers[adapter],
        )
        self.step_log.request_added(to_idle=not self.has_unfinished())
        self._sequences[request_id] = sequence
        self.scheduler.add(sequence)

    def abort(self, request_id: str) -> None:
        """Forget a request; it gives no further output. An unknown id is ignored: it may just have finished."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._finish(sequence, "abort")

    def step(self) -> list[RequestOutput]:
        """Compute one batch; the outputs of the requests that have news."""
        begin_s = time.perf_counter()
        scheduled = self.scheduler.schedule()
        if not scheduled:
            return []
        results = self.runner.run(scheduled)
        end_s = time.perf_counter()
        self.step_log.add(scheduled, results, begin_s=begin_s, end_s=end_s)
        if all(item.decodes for item in scheduled):
            outcomes = [
                DraftOutcome(item.sequence, result.num_drafted, len(result.token_ids) - 1)
                for item, result in zip(scheduled, results, strict=True)
            ]
            self.scheduler.draft_length.observe(outcomes, duration_s=end_s - begin_s)
        return self._postprocess(scheduled, results)

    def has_unfinished(self) -> bool:
        return self.scheduler.has_unfinished()

    def reset_prefix_cache(self) -> bool:
        """Forget cached prefixes and remembered outputs; False, and nothing happens, while requests run."""
        if not self.block_manager.reset():
            return False
        if self.runner.proposer is not None:
            self.runner.proposer.reset()
        return True

    def close(self) -> None:
        """Free weights and cache, end other ranks; nothing else may be called after it."""
        del self.runner, self.block_manager, self.scheduler
        self._leave_ranks()

    def check_alive(self) -> None:
        """Raises RankDiedError when a rank of tensor parallelism has gone."""
        if self._parallel is not None:
            self._parallel.check_alive()

    def _leave_ranks(self) -> None:
        if self._parallel is not None:
            self._parallel.close()

    def counters(self) -> EngineCounters:
        """A copy of the totals with the state of this moment."""
        counters = self._counters
        return EngineCounters(
            num_drafts=counters.num_drafts,
            num_draft_tokens=counters.num_draft_tokens,
            num_accepted_tokens=counters.num_accepted_tokens,
            accepted_tokens_per_position=list(counters.accepted_tokens_per_position),
            prefix_cache_queries=self.scheduler.prefix_cache_queries,
            prefix_cache_hits=self.scheduler.prefix_cache_hits,
            num_preemptions=self.scheduler.num_preemptions,
            prompt_tokens=counters.prompt_tokens,
            generation_tokens=counters.generation_tokens,
            num_requests_running=len(self.scheduler.running),
            num_requests_waiting=len(self.scheduler.waiting),
            kv_cache_usage=self.block_manager.usage,
            num_finished=dict(counters.num_finished),
        )

    def generate(self, prompts: list[list[int]], params: SamplingParams | list[SamplingParams]) -> list[list[int]]:
        """Output tokens of each prompt, all run together; the engine must be idle."""
        each = params if isinstance(params, list) else [params] * len(prompts)
        names = [f"generate-{self._num_added}-{index}" for index in range(len(prompts))]
        for name, prompt, own in zip(names, prompts, each, strict=True):
            self.add_request(name, prompt, own)
        outputs: dict[str, list[int]] = {name: [] for name in names}
        while self.has_unfinished():
            for output in self.step():
                outputs[output.request_id] += output.token_ids
        return [outputs[name] for name in names]

    def _choose_num_blocks(self, target: LoadedModel, draft: DraftParts) -> int:
        size = self.config.block_size
        models = [target] if draft.paged is None else [target, draft.paged]
        return choose_num_blocks(
            self.config,
            bytes_per_block=sum(
                block_bytes(model.config, model.dtype, size, self.config.quantization.kv_cache) for model in models
            ),
            max_model_len=self.max_model_len,
            device=self.device,
        )

    def _paged(self, model: LoadedModel, adapter_rows: AdapterRows | None = None) -> Model:
        """Compiled where this machine can, else eager."""
        if self.device.type == "cpu" and not self.config.enforce_eager:
            try:
                return FusedModel(
                    model,
                    num_blocks=self.num_blocks,
                    block_size=self.config.block_size,
                    max_positions=self.max_model_len,
                    kv_format=self.config.quantization.kv_cache,
                )
            except UnavailableError as reason:
                _log.warning("no compiled steps, several times slower: %s", reason)
        return paged_model(
            model,
            self.config,
            num_blocks=self.num_blocks,
            max_model_len=self.max_model_len,
            device=self.device,
            adapter_rows=adapter_rows,
        )

    def _check_request(self, request_id: str, prompt: list[int], params: SamplingParams) -> None:
        if request_id in self._sequences:
            raise RequestError(f"request id {request_id!r} is in use")
        if not prompt:
            raise RequestError("the prompt is empty: give at least one token")
        if len(prompt) >= self.max_model_len:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens; with one token of output at most "
                f"{self.max_model_len - 1} fit max_model_len {self.max_model_len}"
            )
        if not self.config.enable_chunked_prefill and len(prompt) > self.config.max_num_batched_tokens:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, more than max_num_batched_tokens "
                f"{self.config.max_num_batched_tokens} while chunked prefill is off"
            )
        for token_id in (min(prompt), max(prompt), *params.stop_token_ids):
            if not 0 <= token_id < self.vocab_size:
                raise RequestError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")

    def _postprocess(self, scheduled: list[ScheduledSequence], results: list[StepResult]) -> list[RequestOutput]:
        outputs = [self._take_over(item, result) for item, result in zip(scheduled, results, strict=True)]
        return [output for output in outputs if output is not None]

    def _take_over(self, item: ScheduledSequence, result: StepResult) -> RequestOutput | None:
        """Bring one sequence up to date; None while its prompt is still being computed."""
        sequence = item.sequence
        _gather_prompt_logprobs(sequence, result)
        self._count(sequence, result)
        token_ids, reason = self._trim(sequence, result.token_ids)
        if sequence.grammar is not None:
            sequence.grammar.consume(token_ids)
        self.scheduler.advance(item, token_ids)
        if not token_ids:
            return None
        self._counters.generation_tokens += len(token_ids)
        output = RequestOutput(
            request_id=sequence.request_id,
            token_ids=token_ids,
            finish_reason=reason,
            logprobs=None if result.logprobs is None else result.logprobs[: len(token_ids)],
            prompt_logprobs=_deliver_prompt_logprobs(sequence),
            num_cached_tokens=sequence.num_cached_tokens or 0,
        )
        if reason is not None:
            self._finish(sequence, reason)
        return output

    def _trim(self, sequence: Sequence, token_ids: list[int]) -> tuple[list[int], FinishReason | None]:
        """Cut drawn tokens where the request ends."""
        params = sequence.params
        room = min(params.max_tokens - sequence.num_output_tokens, self.max_model_len - sequence.num_tokens)
        for index, token_id in enumerate(token_ids[:room]):
            if token_id in sequence.stop_token_ids:
                return token_ids[: index + 1], "stop"
        return token_ids[:room], "length" if len(token_ids) >= room else None

    def _count(self, sequence: Sequence, result: StepResult) -> None:
        counters = self._counters
        if result.token_ids and sequence.num_output_tokens == 0:
            counters.prompt_tokens += sequence.num_prompt_tokens
        if result.num_drafted:
            num_accepted = len(result.token_ids) - 1
            counters.num_drafts += 1
            counters.num_draft_tokens += result.num_drafted
            counters.num_accepted_tokens += num_accepted
            for position in range(num_accepted):
                counters.accepted_tokens_per_position[position] += 1

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        assert sequence.status is not SequenceStatus.FINISHED, "a sequence finishes once"
        self.scheduler.finish(sequence)
        if self.runner.proposer is not None:
            self.runner.proposer.finished(sequence)
        del self._sequences[sequence.request_id]
        self._counters.num_finished[reason] = self._counters.num_finished.get(reason, 0) + 1


def _refuse_unsupported(config: EngineConfig) -> None:
    if config.engine != "bundled":
        raise UnsupportedError(f"this config is for engine {config.engine}, not for the bundled engine")


def _choose_max_model_len(config: EngineConfig) -> int:
    """The config's length, within what every checkpoint was trained for."""
    allowed = load_model_config(Path(config.model)).max_position_embeddings
    chosen = config.max_model_len or allowed
    speculation = config.speculative_config
    draft = speculation.model if speculation is not None and speculation.method != "medusa" else None
    limits = {config.model: allowed}
    if draft is not None:
        limits[draft] = load_model_config(Path(draft)).max_position_embeddings
    for folder, limit in limits.items():
        if chosen > limit:
            raise UnsupportedError(f"max_model_len {chosen} is more than {folder} allows ({limit}). Lower it")
    return chosen


def _gather_prompt_logprobs(sequence: Sequence, result: StepResult) -> None:
    if not sequence.needs_prompt_logprobs:
        return
    if sequence.num_computed_tokens == 0:  # also after a preemption in the middle of the prompt
        sequence.prompt_logprobs = [None]
    assert sequence.prompt_logprobs is not None, "the first chunk comes first"
    sequence.prompt_logprobs += result.prompt_logprobs


def _deliver_prompt_logprobs(sequence: Sequence) -> list[TokenLogprob | None] | None:
    if not sequence.needs_prompt_logprobs:
        return None
    sequence.prompt_logprobs_delivered = True
    delivered, sequence.prompt_logprobs = sequence.prompt_logprobs, None
    return delivered
