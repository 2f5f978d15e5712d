"""Settings: where values come from, and what a mistake says."""

import pytest

from tasks.settings import REPOSITORY, BadSettings, load_settings

MINIMAL = '[methods.base]\nvariant = "TB-Online"\n[channels]\nbase = 100\n'


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    """Write a settings file and make it the one that is read."""

    def write(text: str):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        monkeypatch.setenv("TRIBUTARY_SETTINGS", str(path))

    return write


def test_the_committed_settings_are_valid():
    settings = load_settings()
    assert settings.gates_file == REPOSITORY / "mlflow" / "gates.toml"
    assert "base" in settings.methods


def test_everything_lies_in_the_state_folder_unless_told_otherwise(settings_file, monkeypatch, tmp_path):
    settings_file(MINIMAL)
    monkeypatch.setenv("TRIBUTARY_VAR", str(tmp_path / "state"))
    settings = load_settings()
    assert settings.lakehouse_root == str(tmp_path / "state" / "lakehouse")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/state/mlflow.db"


def test_the_environment_wins_over_the_file(settings_file, monkeypatch):
    settings_file("window_days = 7\n[swing]\ntruncation = 100\nalpha = 2.0\n" + MINIMAL)
    monkeypatch.setenv("TRIBUTARY_WINDOW_DAYS", "3")
    monkeypatch.setenv("TRIBUTARY_SWING__TRUNCATION", "50")
    settings = load_settings()
    assert (settings.window_days, settings.swing.truncation, settings.swing.alpha) == (3, 50, 2.0)


def test_settings_cannot_be_changed_by_accident(settings_file):
    settings_file(MINIMAL)
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.window_days = 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "shiny = 1\n", r"channels\.shiny is no method; known: swing, popularity, base"),
        ("windowdays = 3\n" + MINIMAL, "windowdays: Extra inputs are not permitted"),
        ("window_days = 0\n" + MINIMAL, "window_days: Input should be greater than or equal to 1"),
        (MINIMAL + '[methods.x]\nvariant = "IncRecs"\n', r"methods\.x\.variant: Input should be 'TB-Online'"),
        (MINIMAL + '[methods.x]\nbackbone = "gru"\n', "unknown backbone 'gru'; known: comirec, dssm"),
        (MINIMAL + "[methods.x]\nlr = 1\n", r"methods\.x\.lr: Extra inputs"),
        ('[methods.other]\nvariant = "TB-Online"\n[channels]\nother = 5\n', r"methods\.base must be there"),
        (MINIMAL + "[methods.merged]\n", r"methods\.merged is the name of a built-in row"),
        (MINIMAL + '[methods."a/b"]\n', r"methods\.a/b: a name has letters"),
        ("[evaluation]\nks = [100, 50]\n" + MINIMAL, "must be ascending"),
        ("[source]\npreset = 'netflix'\n" + MINIMAL, r"source\.preset: Input should be 'synthetic'"),
        (MINIMAL + "pi2i = 5\n", r"channels\.pi2i needs PI2I's scorer: add the section \[pi2i\]"),
        (MINIMAL + "[pi2i]\nsampling = 'half'\n", r"pi2i\.sampling: Input should be 'default'"),
        (MINIMAL + "[methods.pi2i]\n", r"methods\.pi2i is the name of a built-in row"),
        ("this is no toml", "cannot read the settings file"),
    ],
)
def test_a_mistake_names_the_setting(settings_file, text, message):
    settings_file(text)
    with pytest.raises(BadSettings, match=message) as error:
        load_settings()
    assert "\n" not in str(error.value)


def test_pi2i_is_trained_where_its_section_is_there(settings_file):
    settings_file(MINIMAL)
    assert load_settings().trained_methods == ("base",)
    settings_file(MINIMAL + "pi2i = 50\n[pi2i]\nepochs = 3\n")
    settings = load_settings()
    assert settings.trained_methods == ("base", "pi2i")
    assert settings.pi2i.epochs == 3


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIBUTARY_SETTINGS", str(tmp_path / "nowhere.toml"))
    with pytest.raises(BadSettings, match=r"nowhere\.toml"):
        load_settings()


def test_a_file_is_no_state_folder(settings_file, monkeypatch, tmp_path):
    settings_file(MINIMAL)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIBUTARY_VAR", str(tmp_path / "file"))
    with pytest.raises(BadSettings, match="is a file; name a folder"):
        load_settings()


def test_an_unknown_environment_variable_is_refused(settings_file, monkeypatch):
    settings_file(MINIMAL)
    monkeypatch.setenv("TRIBUTARY_PROMOTON", "auto")
    with pytest.raises(BadSettings, match="TRIBUTARY_PROMOTON: there is no setting promoton"):
        load_settings()


def test_a_broken_environment_variable_is_named(settings_file, monkeypatch):
    settings_file(MINIMAL)
    monkeypatch.setenv("TRIBUTARY_METHODS", "not json")
    with pytest.raises(BadSettings, match="methods"):
        load_settings()
