"""Run by vLLM's own Python: greedy answers of one model, and what its drafts were worth, as a JSON line.

Usage: python vllm_probe.py JOB.json with `model`, `prompts` (token ids), `max_tokens` and `speculative_config` or null.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=job["model"],
        max_model_len=1024,
        enforce_eager=True,
        disable_log_stats=False,
        speculative_config=job["speculative_config"],
    )
    greedy = SamplingParams(temperature=0, max_tokens=job["max_tokens"])
    answers = llm.generate([{"prompt_token_ids": ids} for ids in job["prompts"]], greedy)
    counters = {metric.name: metric.value for metric in llm.get_metrics() if hasattr(metric, "value")}
    told = {
        "token_ids": [list(answer.outputs[0].token_ids) for answer in answers],
        "drafted": counters.get("vllm:spec_decode_num_draft_tokens", 0),
        "accepted": counters.get("vllm:spec_decode_num_accepted_tokens", 0),
    }
    print("RESULT " + json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
