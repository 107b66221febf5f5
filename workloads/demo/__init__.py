"""The bundled demo: tasks, traffic and tokenizer we make ourselves. It does not know any engine or model weights."""
