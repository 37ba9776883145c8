"""Training for every workload: the loop, the step, checkpoints, the metrics log, the memory planner.

Read `task.py` first (what a workload must offer), then `trainer.py` and `step.py`. Imports `model.network`,
`model.parallel` and the common parts of `pipeline`; knows nothing of weather.
"""
