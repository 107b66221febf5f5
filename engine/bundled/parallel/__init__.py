"""Tensor parallelism: one rank a device, as in Megatron-LM (Shoeybi et al. 2019).

Rank 0 is the engine; the others only compute their part of each layer. Scheduling, drafting and drawing stay on rank 0.
"""
