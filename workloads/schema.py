"""The arrow schema of a recorded workload: one row a request (`workload/1`).

Does not know how a file is written, or what the rows must satisfy beyond their types.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = "workload/1"
METADATA_KEY: Final = b"fireoptimizer.workload"

_WORD = pa.dictionary(pa.int32(), pa.string())  # few distinct values

CHECK_TYPE: Final = pa.struct([("kind", pa.string()), ("spec", pa.string()), ("weight", pa.float32())])

WORKLOAD_SCHEMA: Final = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        ("arrival_s", pa.float64()),
        ("session_id", pa.string()),
        ("turn", pa.int32()),
        ("parent_ids", pa.list_(pa.string())),
        ("think_s", pa.float64()),
        ("model", _WORD),
        ("adapter", _WORD),
        ("tenant", _WORD),
        ("slo_class", _WORD),
        ("priority", pa.int32()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("prompt", pa.large_string()),
        ("messages", pa.large_string()),  # JSON
        ("tools", pa.large_string()),  # JSON
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("response_token_ids", pa.list_(pa.int32())),
        ("prefix_hashes", pa.list_(pa.int64())),
        ("max_tokens", pa.int32()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("top_k", pa.int32()),
        ("seed", pa.int64()),
        ("stop", pa.list_(pa.string())),
        ("response_format", pa.large_string()),  # JSON
        ("extra_body", pa.large_string()),  # JSON
        ("response", pa.large_string()),
        ("status", _WORD),
        ("finish_reason", _WORD),
        ("ttft_s", pa.float64()),
        ("e2el_s", pa.float64()),
        ("checks", pa.list_(CHECK_TYPE)),
        ("extra", pa.large_string()),  # JSON
    ]
)

JSON_COLUMNS: Final = ("messages", "tools", "response_format", "extra_body", "extra")
STATUSES: Final = ("ok", "error", "cancelled", "timeout")
