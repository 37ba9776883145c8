"""What a training step costs: memory by part, operations, bytes and collectives, and the seconds that follow.

Read first: `rehearse` in model/training/rehearsal.py, which runs a step by shape alone while the classes here watch.
"""
