"""The bundled engine: a compact continuous-batching engine for Llama and Qwen checkpoints on CPU and CUDA.

Knows nothing of workloads, objectives or HTTP. This module imports no torch: `EngineConfig` users stay light.
"""
