"""LoRA adapters (Hu et al. 2021) over one base model: folders, low-rank layers, and which batches may mix them."""
