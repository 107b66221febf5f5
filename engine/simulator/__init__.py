"""A discrete-event model of a continuous-batching server: what a config would do, without running it."""
