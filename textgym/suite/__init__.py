"""The benchmark suite: settings as data, rows, statistics. docs/SUITE.md says how to run it and how to add to it."""
