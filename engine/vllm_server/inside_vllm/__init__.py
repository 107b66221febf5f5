"""What runs inside vLLM's own processes: this folder is put on their path, and its modules import nothing of ours."""
