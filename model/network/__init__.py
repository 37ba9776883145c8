"""What networks are made of: the channel stage, its fused form, the encoder, heads, climate-learn's networks.

Read `encoder.py` first, then `channel_stage.py` and `aggregate.py`. Imports torch and the standard library only. How a
network may be cut over ranks is declared here (`cut.py`) and done in `model.parallel`.
"""
