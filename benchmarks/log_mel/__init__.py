"""The log-mel on the processor, against named peers: ``python -m benchmarks.log_mel``; see ``benchmarks/README.md``."""
