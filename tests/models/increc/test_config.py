import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.increc.config import IncRecConfig


def test_config_loads_no_torch():
    code = "import models.increc.config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_field_says_what_it_is():
    assert [name for name, field in IncRecConfig.model_fields.items() if not field.description] == []


def test_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(
        ValidationError,
        match=r"unknown backbone 'gru'; known: comirec, dssm, kuaiformer, mind, sasrec, youtubednn",
    ):
        IncRecConfig(backbone="gru")


@pytest.mark.parametrize("backbone", ["sasrec", "kuaiformer"])
def test_heads_must_divide_dim(backbone):
    with pytest.raises(ValidationError, match=f"{backbone} cuts dim into n_heads equal heads, but 10 is no"):
        IncRecConfig(backbone=backbone, dim=10, n_heads=4)
    assert IncRecConfig(backbone="comirec", dim=10, n_heads=4).dim == 10


@pytest.mark.parametrize("wrong", [{"variant": "Inc"}, {"epoch": 3}, {"temperature": 0}, {"dim": 1}])
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        IncRecConfig(**wrong)


@pytest.mark.parametrize(
    ("variant", "alpha_mode", "n_towers", "serving_tower"),
    [
        ("TB-Online", "none", 1, "basic"),
        ("TB-ITG", "none", 1, "basic"),
        ("TB-boost", "none", 1, "basic"),
        ("IncRec-NA", "none", 2, "incremental"),
        ("IncRec-ori", "direct", 3, "incremental"),
        ("IncRec", "implicit", 3, "incremental"),
    ],
)
def test_variant_implies_towers_and_alpha(variant, alpha_mode, n_towers, serving_tower):
    config = IncRecConfig(variant=variant)
    assert (config.alpha_mode, len(config.towers), config.serving_tower) == (
        alpha_mode,
        n_towers,
        serving_tower,
    )
