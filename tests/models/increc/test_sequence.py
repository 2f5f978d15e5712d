"""What a history's items carry: read from samples, learned from, and given again when users are embedded."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.increc import backbones
from models.increc.config import IncRecConfig
from models.increc.features import MissingColumn
from models.increc.model import TrainedModel
from models.increc.samples import NoSamples, read_samples
from models.increc.sequence import SequenceEmbedding, places_from_end
from models.increc.training import train
from models.increc.vocabulary import build_vocabulary
from models.search import exact_top_k

IDS, TIMES, TEXTS = pa.list_(pa.int64()), pa.list_(pa.timestamp("us")), pa.list_(pa.string())
NOW = datetime(2026, 1, 5)
SEQUENTIAL = [name for name in backbones.names() if backbones.load(name).READS_SEQUENCE]
