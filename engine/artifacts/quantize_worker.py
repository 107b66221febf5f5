"""`python quantize_worker.py JOB.json`: quantizes a checkpoint with llm-compressor, in the environment that has it.

A process of its own that imports nothing of ours. It does not know the cache: it writes to the folder it is told.
Lines on stdout that are JSON objects with `event` are for whoever started it: `progress` says a phase, `failed` a
kind and a message, `done` that all is written.
"""

import json
import sys
from pathlib import Path
from typing import Any

MAX_SAMPLE_TOKENS = 2048
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "Cannot allocate memory")


def main(job_path: str) -> int:
    """Do the job; the exit status says whether a checkpoint was written."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    phase = ["importing"]

    def enter(name: str) -> None:
        phase[0] = name
        tell("progress", phase=name)

    try:
        enter("importing llm-compressor")
        quantize(job, enter)
    except Exception as error:
        tell("failed", kind=kind_of(error, phase[0]), message=f"{type(error).__name__}: {error}"[:2000])
        raise
    tell("done")
    return 0


def tell(event: str, **fields: Any) -> None:
    """One line for the parent."""
    print(json.dumps({"event": event, **fields}), flush=True)


def kind_of(error: Exception, phase: str) -> str:
    """A kind of `engine.backend.FailureKind`."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return "out_of_memory"
    return "bad_checkpoint" if phase == "loading the checkpoint" else "unsupported"


def quantize(job: dict[str, Any], enter: Any) -> None:
    """Load `source`, apply each of `modifiers`, save to `output` in compressed-tensors layout."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM

    kinds = {"gptq": GPTQModifier, "round-to-nearest": QuantizationModifier}
    enter("loading the checkpoint")
    model = AutoModelForCausalLM.from_pretrained(job["source"], dtype="auto", local_files_only=True)
    data = {}
    if job["calibration"]:
        limit = min(MAX_SAMPLE_TOKENS, getattr(model.config, "max_position_embeddings", MAX_SAMPLE_TOKENS))
        rows = calibration_rows(Path(job["calibration"]), job["source"], limit)
        data = {"dataset": rows, "num_calibration_samples": len(rows), "max_seq_length": limit}
        data["shuffle_calibration_samples"] = False
    enter("quantizing")
    recipe = [
        kinds[each["method"]](config_groups=each["config_groups"], ignore=each["ignore"]) for each in job["modifiers"]
    ]
    oneshot(model=model, recipe=recipe, **data)
    enter("writing")
    model.save_pretrained(job["output"], save_compressed=True)


def calibration_rows(path: Path, source: str, limit: int) -> Any:
    """The rows of a calibration file as token ids, each cut to `limit` tokens."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    samples = [token_ids(row, tokenizer)[:limit] for row in read_rows(path)]
    if not any(samples):
        raise ValueError("the calibration data holds no tokens")
    return Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in samples if ids])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines, apart at line feeds alone: a text may hold other characters that end lines, such as U+2028."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def token_ids(row: dict[str, Any], tokenizer: Any) -> list[int]:
    """A row has `token_ids`, `text`, or `messages` (with `tools`, or not)."""
    if "token_ids" in row:
        return list(row["token_ids"])
    if "text" in row:
        return list(tokenizer(row["text"])["input_ids"])
    if tokenizer.chat_template is None:
        return list(tokenizer("\n".join(str(message["content"]) for message in row["messages"]))["input_ids"])
    text = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
