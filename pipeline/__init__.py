"""What all stages agree on: configuration, the table of stages, stores, provenance, logs and the command line.

Read `stages.py` and `config.py` first. The modules here know no workload; `workloads.py` says where each one's
configuration and stages are, and `weather` is the first. Nothing here imports a stage: the command line loads them by
name.
"""
