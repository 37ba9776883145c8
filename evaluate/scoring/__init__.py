"""From stores to scores: sums over common init times, bootstrap intervals, tables, maps, and the score stage.

Imports every part of `evaluate` but `report`, and `pipeline`. Read first: `stage`, then `stores` (what is summed over
which init times) and `tables` (what becomes of the sums).
"""
