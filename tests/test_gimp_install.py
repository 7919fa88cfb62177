"""`restore-plugin install-gimp`, on made-up homes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from restore_plugin import __version__, cli, doctor, install_gimp
from restore_plugin.errors import InputError, NothingFound, OutputError, RestoreError
from restore_plugin.install_gimp import FLATPAK, NORMAL, SNAP, Profile

COMMAND = [sys.executable, "-m", "restore_plugin.cli"]


def make(home: Path, *folders: str) -> None:
    for folder in folders:
        (home / folder).mkdir(parents=True)


def found(home: Path, platform: str, **environment: str) -> list[tuple[str, str]]:
    profiles = install_gimp.profiles(environment, home, platform)
    return [(each.folder.relative_to(home).as_posix(), each.kind) for each in profiles]


def test_linux(tmp_path: Path) -> None:
    make(
        tmp_path,
        ".config/GIMP/2.10",
        ".config/GIMP/3.0",
        ".config/GIMP/3.2",
        ".config/GIMP/3.0.bak",
        ".var/app/org.gimp.GIMP/config/GIMP/3.0",
        ".var/app/org.inkscape.Inkscape/config/GIMP/3.0",
        "snap/gimp/current/.config/GIMP/3.0",
    )
    assert found(tmp_path, "linux") == [
        (".config/GIMP/3.0", NORMAL),
        (".config/GIMP/3.2", NORMAL),
        (".var/app/org.gimp.GIMP/config/GIMP/3.0", FLATPAK),
        ("snap/gimp/current/.config/GIMP/3.0", SNAP),
    ]


def test_linux_with_another_configuration_folder(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/GIMP/3.0", ".config/GIMP/3.0")
    assert found(tmp_path, "linux", XDG_CONFIG_HOME=str(tmp_path / "elsewhere")) == [("elsewhere/GIMP/3.0", NORMAL)]


def test_macos(tmp_path: Path) -> None:
    make(tmp_path, "Library/Application Support/GIMP/3.0", "Library/Application Support/GIMP/2.10")
    assert found(tmp_path, "darwin") == [("Library/Application Support/GIMP/3.0", NORMAL)]


def test_windows(tmp_path: Path) -> None:
    store = "AppData/Local/Packages/GIMP.43237F745C81B_x/LocalCache/Roaming/GIMP/3.0"
    make(tmp_path, "AppData/Roaming/GIMP/3.0", "AppData/Roaming/GIMP/2.10", store)
    assert found(tmp_path, "win32") == [("AppData/Roaming/GIMP/3.0", NORMAL), (store, NORMAL)]
    make(tmp_path, "Roaming/GIMP/3.2")
    given = found(tmp_path, "win32", APPDATA=str(tmp_path / "Roaming"), LOCALAPPDATA=str(tmp_path / "none"))
    assert given == [("Roaming/GIMP/3.2", NORMAL)]


def test_a_profile_that_is_named(tmp_path: Path) -> None:
    make(tmp_path, "mine", ".config/GIMP/3.0")
    assert found(tmp_path, "linux", GIMP3_DIRECTORY=str(tmp_path / "mine")) == [
        ("mine", NORMAL),
        (".config/GIMP/3.0", NORMAL),
    ]
    named = str(tmp_path / ".config/GIMP/3.0")  # once, though found twice
    assert found(tmp_path, "linux", GIMP3_DIRECTORY=named) == [(".config/GIMP/3.0", NORMAL)]


def test_nobody_has_gimp(tmp_path: Path) -> None:
    for platform in ("linux", "darwin", "win32"):
        assert found(tmp_path, platform) == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_one_profile(tmp_path: Path) -> None:
    make(tmp_path, ".config/GIMP/3.0", ".var/app/org.gimp.GIMP/config")
    (tmp_path / ".var/app/org.gimp.GIMP/config/GIMP").symlink_to(tmp_path / ".config/GIMP")
    assert found(tmp_path, "linux") == [(".config/GIMP/3.0", NORMAL)]


# --- installing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    make(tmp_path, "GIMP/3.0")
    return Profile(tmp_path / "GIMP/3.0")


def test_install(profile: Profile) -> None:
    target = install_gimp.install(profile, COMMAND)
    assert target == profile.folder / "plug-ins/restore-plugin"
    main = target / "restore-plugin.py"
    assert os.name == "nt" or os.access(main, os.X_OK)
    assert main.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")
    inner = {path.name for path in (target / "gimp_plugin").iterdir()}
    assert {"__init__.py", "table.py", "service.py", "worker_client.py"} <= inner
    assert "main.py" not in inner
    noted = {"version": __version__, "command": COMMAND, "offers": install_gimp.offers()}
    assert json.loads((target / "settings.json").read_text()) == noted
    assert {"cellnet", "bicubic", "mosaic"} <= set(noted["offers"])
    assert install_gimp.installed(profile) == noted
    assert sorted(path.name for path in profile.folder.iterdir()) == ["plug-ins"]  # nothing half made


def test_what_is_installed_stands_alone(profile: Profile) -> None:
    """Without GIMP and without the library it imports, and talks of what is missing."""
    target = install_gimp.install(profile, ["/nowhere/restore-plugin"])
    code = (
        "from gimp_plugin import service, table, rows\n"
        "try:\n    service.connect()\n"
        "except service.client().WorkerError as error:\n"
        "    print(service.sentence(error.kind, str(error), table.ROWS[0], False))"
    )
    environment = {"PYTHONPATH": str(target), "RESTORE_PLUGIN_RUNTIME": str(profile.folder / "run"), "PATH": ""}
    if "SYSTEMROOT" in os.environ:
        environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, cwd=target, capture_output=True, text=True
    )
    assert "is restore-plugin still installed there?" in done.stdout, done.stderr


def test_install_replaces_an_older_one(profile: Profile) -> None:
    target = install_gimp.install(profile, ["old"])
    (target / "gimp_plugin" / "of_an_older_version.py").write_text("")
    first = (target / "restore-plugin.py").stat().st_mtime_ns
    install_gimp.install(profile, COMMAND)
    assert not (target / "gimp_plugin" / "of_an_older_version.py").exists()
    assert (target / "restore-plugin.py").stat().st_mtime_ns > first  # so GIMP asks it again
    assert (install_gimp.installed(profile) or {})["command"] == COMMAND


def test_another_one_s_folder_is_left_alone(profile: Profile) -> None:
    target = profile.plug_in
    target.mkdir(parents=True)
    (target / "restore-plugin.py").write_text("print('mine')")
    for work in (lambda: install_gimp.install(profile, COMMAND), lambda: install_gimp.uninstall(profile)):
        with pytest.raises(OutputError, match="was not made by"):
            work()
    assert (target / "restore-plugin.py").read_text() == "print('mine')"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_not_followed(profile: Profile, tmp_path: Path) -> None:
    """A developer's link to a working copy must not be emptied."""
    elsewhere = tmp_path / "elsewhere"
    make(tmp_path, "elsewhere", "GIMP/3.0/plug-ins")
    (elsewhere / "settings.json").write_text("{}")
    profile.plug_in.symlink_to(elsewhere)
    with pytest.raises(OutputError, match="was not made by"):
        install_gimp.uninstall(profile)
    assert (elsewhere / "settings.json").exists()


def test_uninstall(profile: Profile) -> None:
    assert install_gimp.uninstall(profile) is False
    install_gimp.install(profile, COMMAND)
    (profile.folder / "plug-ins/other").mkdir()
    assert install_gimp.uninstall(profile) is True
    assert [path.name for path in (profile.folder / "plug-ins").iterdir()] == ["other"]
    assert install_gimp.installed(profile) is None


def test_a_disk_that_cannot_be_written_to(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    install_gimp.install(profile, ["old"])

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        install_gimp.install(profile, COMMAND)
    assert (install_gimp.installed(profile) or {})["command"] == ["old"]  # the old one still works
    assert sorted(path.name for path in profile.folder.iterdir()) == ["plug-ins"]


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """This copy need not be installed for the tests."""
    monkeypatch.setattr(install_gimp, "check_command", lambda command: None)


@pytest.mark.usefixtures("starts")
def test_the_command(profile: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--profile", str(profile.folder)]
    assert cli.main(["install-gimp", *given]) == 0
    told = capsys.readouterr().out
    assert f"installed into {profile.plug_in} (GIMP)" in told
    assert "Filters > Restore" in told
    assert cli.main(["install-gimp", "--uninstall", *given]) == 0
    assert f"removed from {profile.plug_in.parent}" in capsys.readouterr().out
    assert cli.main(["install-gimp", "--uninstall", *given]) == 0
    assert "was not in" in capsys.readouterr().out


@pytest.mark.usefixtures("starts")
def test_the_command_finds_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    make(home, ".config/GIMP/3.0", ".var/app/org.gimp.GIMP/config/GIMP/3.0", "snap/gimp/current/.config/GIMP/3.0")
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("GIMP3_DIRECTORY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["install-gimp"]) == 0
    told = capsys.readouterr().out
    assert told.count("installed into") == 3
    for kind in (FLATPAK, SNAP):
        assert f"{kind} may not start programs" in told
    assert told.count("restore-plugin worker start --idle-minutes 0 --directory") == 2


def test_no_gimp_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_gimp, "profiles", lambda: [])
    options = cli.parser().parse_args(["install-gimp"])
    with pytest.raises(NothingFound, match="start GIMP 3 once"):
        install_gimp.run(options)
    options = cli.parser().parse_args(["install-gimp", "--profile", str(tmp_path / "none")])
    with pytest.raises(InputError, match="is no folder"):
        install_gimp.run(options)


def test_a_copy_that_is_not_installed_is_not_entered() -> None:
    with pytest.raises(RestoreError, match="does not start outside of this folder"):
        install_gimp.check_command([sys.executable, "-m", "restore_plugin_that_is_not_there"])
    with pytest.raises(RestoreError, match="does not start"):
        install_gimp.check_command(["/nowhere/python"])
    install_gimp.check_command([sys.executable])  # `python --version` works anywhere


# --- doctor --------------------------------------------------------------------------------------------------------


def looked(monkeypatch: pytest.MonkeyPatch, *profiles: Profile) -> list[doctor.Check]:
    monkeypatch.setattr(install_gimp, "profiles", lambda: list(profiles))
    return list(doctor.gimp())


def test_doctor(monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
    assert [check.state for check in looked(monkeypatch)] == [doctor.ABSENT]
    (check,) = looked(monkeypatch, profile)
    assert (check.state, check.fix) == (doctor.ABSENT, "restore-plugin install-gimp")
    install_gimp.install(profile, COMMAND)
    (check,) = looked(monkeypatch, profile)
    assert check.state == doctor.WORKS
    assert not check.main
    (check,) = looked(monkeypatch, Profile(profile.folder, FLATPAK))
    assert "worker start" in check.text
    install_gimp.install(profile, ["/nowhere/python"])
    (check,) = looked(monkeypatch, profile)
    assert (check.state, check.fix) == (doctor.WARNING, "restore-plugin install-gimp")
    (profile.plug_in / "settings.json").write_text('{"version": "0.0.1"}')
    (check,) = looked(monkeypatch, profile)
    assert check.state == doctor.WARNING
    assert "0.0.1" in check.text
    (profile.plug_in / "settings.json").write_text("broken")
    (check,) = looked(monkeypatch, profile)
    assert check.state == doctor.WARNING
