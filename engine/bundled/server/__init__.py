"""The OpenAI HTTP API in front of the bundled engine, as one process.

Does not know models, schedulers or tensors: it talks to `LLMEngine` alone.
"""
