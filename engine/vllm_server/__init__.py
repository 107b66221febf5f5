"""The production engine: a real `vllm serve` process, from the user's own environment.

vLLM is never imported here: `parser_probe.py` is a script that runs inside its environment.
"""
