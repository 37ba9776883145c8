"""A small experiment with a real store: bands in a smooth spectrum, images that are larger than a tile or smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import parse
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageSize, ImageStore
from preprocess.imaging.normals import run_normals
from preprocess.imaging.writing import Content, fill, image_writer

BANDS, TILE, PATCH = 7, 8, 2
SIZES = [(8, 8), (8, 14), (6, 8), (8, 8), (8, 8), (8, 8), (8, 8), (8, 8)]
"""Rows and columns: two tiles of the second image, padding in the second and the third."""
