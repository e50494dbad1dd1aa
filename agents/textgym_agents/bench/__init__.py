"""Benchmarks: ``textgym bench speed`` and ``textgym bench env``. Every comparison alternates its contestants in one run."""
