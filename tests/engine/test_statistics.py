"""EngineStatistics from a /metrics page."""

from engine.statistics import parse_statistics

PAGE = """\
# HELP vllm:spec_decode_num_drafts_total Drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0"} 10.0
vllm:spec_decode_num_drafts_total{engine="1"} 5.0
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{engine="0"} 45.0
# TYPE vllm:spec_decode_num_accepted_tokens_total counter
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 30.0
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_total counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 9.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 14.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="10"} 7.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.25
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="+Inf"} 2.0
vllm:time_to_first_token_seconds_count 2.0
vllm:time_to_first_token_seconds_sum 0.5
# TYPE python_info gauge
python_info 1.0
"""


def test_counters_are_summed_over_engines_and_positions_sorted() -> None:
    statistics = parse_statistics(PAGE)
    assert statistics.num_drafts == 15
    assert statistics.acceptance_length == 1 + 30 / 15
    assert statistics.accepted_tokens_per_position == (14, 9, 7)
    assert statistics.prefix_cache_hit_rate is None
    assert statistics.extra == {
        "kv_cache_usage_perc": 0.25,
        "time_to_first_token_seconds_count": 2.0,
        "time_to_first_token_seconds_sum": 0.5,
    }


def test_an_empty_page_counts_nothing() -> None:
    assert parse_statistics("").num_drafts == 0


def test_other_engines_counters_are_read_under_their_own_names() -> None:
    page = "# TYPE sglang:generation_tokens_total counter\nsglang:generation_tokens_total 7.0\n"
    assert parse_statistics(page).generation_tokens == 7
    page = "# TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total 8\n"
    page += "# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 9\nother:prompt_tokens_total 1\n"
    found = parse_statistics(page)
    assert (found.generation_tokens, found.prompt_tokens) == (8, 9)
