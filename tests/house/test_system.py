"""tools/system.sh: what is there is left alone, what is missing is installed, or named."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "system.sh"
YES, NO = "exit 0", "exit 1"
# The machine's own programs; whoever asks is root.
BELOW = {"id": "echo 0", "env": 'export "$1"; shift; exec "$@"', "dirname": "echo ."}


@pytest.fixture
def system(tmp_path):
    """Run the script on a machine that has these programs only: its exit code and its errors."""

    def run(*arguments, programs, environment=()):
        for name, body in {**BELOW, **programs}.items():
            path = tmp_path / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)
        done = subprocess.run(
            ["/bin/bash", SCRIPT, *arguments],
            env={"PATH": str(tmp_path), **dict(environment)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize(
    ("what", "programs"),
    [
        ("chromium", ["chromium"]),
        ("chromium", ["google-chrome", "chromium-headless-shell"]),
        ("node", ["node"]),
        ("java", ["java"]),
        ("venv", ["python3"]),
    ],
)
def test_what_is_there_is_left_alone(system, what, programs):
    assert system(what, programs=dict.fromkeys(programs, YES)) == (0, "")


def test_what_is_named_is_taken(system, tmp_path):
    (tmp_path / "mine").write_text("#!/bin/bash\nexit 0\n")
    (tmp_path / "mine").chmod(0o755)
    mine = str(tmp_path / "mine")
    assert system("chromium", programs={}, environment={"CHROMIUM": mine}) == (0, "")
    assert system("venv", mine, programs={"python3": NO}) == (0, "")
    code, said = system("venv", "python3.99", programs={"python3": YES, "python3.99": NO})
    assert code == 1
    assert said.startswith("error: python3.99 cannot make virtual environments: ")


MISSING = {  # the program, what is said of it, and the packages that bring it
    "chromium": ("chromium", "Chromium is missing: install it", "chromium fonts-dejavu-core"),
    "firefox": ("firefox-esr", "Firefox is missing: install it", "firefox-esr"),
    "node": ("node", "Node.js 18 or newer is missing: install it", "nodejs npm"),
    "java": ("java", "Java is missing: install it", "default-jre-headless"),
    "venv": (
        "python3",
        "python3 cannot make virtual environments: install its venv module",
        "python3-venv",
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_named_with_its_package(system, what):
    _, missing, packages = MISSING[what]
    code, said = system(what, programs={})
    assert code == 1
    assert said.startswith(f"error: {missing} (Debian: apt-get install {packages.split()[0]}")


@pytest.mark.parametrize("what", [what for what in MISSING if what != "firefox"])  # npm drives it
def test_what_is_missing_is_installed(system, tmp_path, what):
    program, _, packages = MISSING[what]
    asked, options = tmp_path / "asked", "-y -qq --no-install-recommends"
    there = f'printf "#!/bin/bash\\n" > {tmp_path}/{program}; /bin/chmod +x {tmp_path}/{program}'
    apt = f'echo "$DEBIAN_FRONTEND $*" >> {asked}; [ "$1" = update ] || {{ {there}; }}'
    code, said = system(what, programs={"apt-get": apt})
    assert (code, said) == (0, f"installing with apt: {packages}\n")
    lines = asked.read_text().splitlines()
    assert lines == [" update -qq", f"noninteractive install {options} {packages}"]


def test_a_word_that_it_does_not_know_is_refused(system):
    code, said = system("browser", programs={})
    assert code == 1
    assert said.startswith("error: usage: tools/system.sh chromium | firefox | ")
