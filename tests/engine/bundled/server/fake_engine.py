"""An engine that recites: what the server needs of `LLMEngine`, without a model."""

# ruff: noqa: ARG002 (a fake takes what the real one takes)
import itertools
import time
from dataclasses import dataclass, field

from engine.bundled.errors import RequestError
from engine.bundled.outputs import EngineCounters, RequestOutput, TokenLogprob
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.sequence import Standing

EOS = 0


class FakeTokenizer:
    """A character a token; code points are ids and 0 ends."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return "".join("</s>" if i == EOS else chr(i) for i in token_ids if i != EOS or not skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        return self.decode([token_id], skip_special_tokens=False)

    def detokenizer(self, *, skip_special_tokens: bool = True) -> "FakeDetokenizer":
        return FakeDetokenizer(self)

    def apply_chat_template(self, messages, *, tools=None, add_generation_prompt=True, **variables) -> str:
        told = "".join(f"[{message['role']}]{message['content']}" for message in messages)
        return told + (f"[tools]{len(tools)}" if tools else "") + ("[assistant]" if add_generation_prompt else "")


class FakeDetokenizer:
    def __init__(self, tokenizer: FakeTokenizer) -> None:
        self.tokenizer = tokenizer

    def append(self, token_id: int) -> str:
        return self.tokenizer.decode([token_id])

    def finish(self) -> str:
        return ""


@dataclass
class Recital:
    params: SamplingParams
    prompt: list[int]
    rest: "itertools.chain[int]"
    num_sent: int = 0


@dataclass
class FakeEngine:
    """Every request gets `text`, `tokens_per_step` tokens at a time, then EOS."""

    text: str = "hello world"
    tokens_per_step: int = 1
    step_s: float = 0.0
    vocab_size: int = 256
    max_model_len: int = 100
    running: dict[str, Recital] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    seen: list[SamplingParams] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    num_resets: int = 0
    breaks: bool = False
    closed: bool = False
    lost_a_rank: bool = False
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)

    def add_request(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        params: SamplingParams,
        standing: Standing,
        *,
        adapter: str | None = None,
    ) -> None:
        assert adapter is None, "it has none"
        if prompt_token_ids == [13]:
            raise RequestError("the engine does not like 13")
        self.seen.append(params)
        self.standings.append(standing)
        endless = itertools.chain(map(ord, self.text), itertools.repeat(EOS))
        self.running[request_id] = Recital(params, prompt_token_ids, endless)

    def check_alive(self) -> None:
        if self.lost_a_rank:
            raise RuntimeError("rank 1 has gone")

    def close(self) -> None:
        self.closed = True

    def abort(self, request_id: str) -> None:
        if self.running.pop(request_id, None) is not None:
            self.aborted.append(request_id)

    def has_unfinished(self) -> bool:
        return bool(self.running)

    def reset_prefix_cache(self) -> bool:
        self.num_resets += not self.running
        return not self.running

    def counters(self) -> EngineCounters:
        return EngineCounters(
            num_drafts=3,
            num_draft_tokens=12,
            num_accepted_tokens=7,
            prompt_tokens=5,
            accepted_tokens_per_position=[4, 2, 1],
            num_requests_running=len(self.running),
        )

    def step(self) -> list[RequestOutput]:
        if self.breaks:
            raise RuntimeError("the fake engine broke")
        time.sleep(self.step_s)
        return [self._advance(request_id) for request_id in list(self.running)]

    def _advance(self, request_id: str) -> RequestOutput:
        recital = self.running[request_id]
        params, is_first = recital.params, recital.num_sent == 0
        token_ids: list[int] = []
        reason = None
        while reason is None and len(token_ids) < self.tokens_per_step:
            token_ids.append(next(recital.rest))
            recital.num_sent += 1
            reason = self._finish_reason(recital, token_ids[-1])
        if reason is not None:
            del self.running[request_id]
        return RequestOutput(
            request_id=request_id,
            token_ids=token_ids,
            finish_reason=reason,
            logprobs=None if params.logprobs is None else [_logprob(i, params.logprobs) for i in token_ids],
            prompt_logprobs=_prompt_logprobs(recital) if is_first else None,
            num_cached_tokens=2,
        )

    def _finish_reason(self, recital: Recital, token_id: int) -> str | None:
        params = recital.params
        stops = {*params.stop_token_ids, *(() if params.ignore_eos else (EOS,))}
        if token_id in stops and recital.num_sent >= params.min_tokens:
            return "stop"
        return "length" if recital.num_sent >= params.max_tokens else None


def _prompt_logprobs(recital: Recital) -> list[TokenLogprob | None] | None:
    count = recital.params.prompt_logprobs
    return None if count is None else [None, *(_logprob(i, count) for i in recital.prompt[1:])]


def _logprob(token_id: int, count: int) -> TokenLogprob:
    """The token itself is second best after its successor."""
    best = ((token_id + 1, -0.25), (token_id, -1.5), (token_id + 2, float("-inf")))
    return TokenLogprob(token_id, -1.5, 2, best[:count])
