"""The load generator: replays recorded workloads over the OpenAI HTTP API and records what happened.

Knows nothing of engines or objectives.
"""
