"""Figures as the scripts tell them to bench/run (`src/figure.rs` says how), and the page that holds them."""

import datetime
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/performance.md"


def record(claim, value, unit, direction="-", target=""):
    if file := os.environ.get("BENCH_RESULTS"):
        with open(file, "a") as out:
            out.write(f"{claim}\t{value}\t{unit}\t{direction}\t{target}\n")


@dataclass
class Figure:
    claim: str
    value: float
    unit: str
    direction: str
    target: float | None

    @property
    def is_met(self):
        """None where there is no target."""
        match self.direction:
            case "<=":
                return self.value <= self.target
            case ">=":
                return self.value >= self.target

    @property
    def shown(self):
        return with_unit(self.value, self.unit)

    @property
    def wanted(self):
        words = {"<=": "at most ", ">=": "at least "}
        return words[self.direction] + with_unit(self.target, self.unit) if self.target is not None else "–"

    @property
    def verdict(self):
        if self.is_met is None:
            return "–"
        if self.is_met:
            return "met"
        if not self.target:
            return f"missed by {self.shown}"
        return f"missed: {self.value / self.target:.2f} of it" if self.direction == ">=" else f"missed: {self.value / self.target:.2f} × as much"


def with_unit(value, unit):
    digits = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 20 else 2
    return f"{value:,.{digits}f}{' ' if unit and not unit.startswith('/') else ''}{'×' if unit == 'x' else unit}"


def read(file):
    """The figures that scripts have added to this file."""
    figures = []
    for line in pathlib.Path(file).read_text().splitlines() if os.path.exists(file) else ():
        claim, value, unit, direction, target = line.split("\t")
        figures.append(Figure(claim, float(value), unit, direction, float(target) if target else None))
    return figures


def table(header, rows):
    widths = [max(len(str(row[column])) for row in [header, *rows]) for column in range(len(header))]
    line = lambda row: "| " + " | ".join(f"{str(cell):{width}}" for cell, width in zip(row, widths)) + " |"
    return "\n".join([line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def execute(command, environment, seconds):
    """Runs a command and shows what it prints: its exit code, its output, and whether it had to be ended because it was late.

    Whatever it has started ends with it, also when this program is told to.
    """
    late = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    timer = threading.Timer(seconds, lambda: (late.set(), end(process.pid)))
    timer.start()
    output = []
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            output.append(line)
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            end(process.pid)
            process.wait()
    return code, "".join(output), late.is_set()


def end(session):
    """Asks everything in a session of our own to end; what a script has to clean up, it does then."""
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            # After the name, which may hold anything: state, parent, group, session.
            if int((directory / "stat").read_text().rsplit(")", 1)[1].split()[3]) == session:
                os.kill(int(directory.name), signal.SIGTERM)
        except (OSError, IndexError):
            continue


def run(*command):
    """A command's first line, or nothing where it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def machine():
    """What the figures were measured on, in one paragraph."""
    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text(), re.M)
    locked = {}
    for manifest in ("Cargo.lock", "bench/peers/Cargo.lock"):
        locked |= dict(re.findall(r'name = "([^"]+)"\nversion = "([^"+]+)', (ROOT / manifest).read_text()))
    crates = ", ".join(f"{name} {locked[name]}" for name in ("rusqlite", "postgres", "tiny_http", "axum", "hyper", "tokio", "r2d2"))
    packages = (ROOT / "bench/peers/python/requirements.txt").read_text().split()
    packages = ", ".join(re.sub(r"(\[.*\])?==", " ", package) for package in packages)
    versions = [
        f"Linux {platform.release()}",
        f"glibc {platform.libc_ver()[1]}",
        run("rustc", "--version"),
        run("postgres", "--version") or run("sh", "-c", "\"$(ls -d /usr/lib/postgresql/*/bin | tail -1)/postgres\" --version"),
        f"Python {platform.python_version()}",
    ]
    return (
        f"{len(os.sched_getaffinity(0))} cores of {cpu[1] if cpu else platform.machine()}, {int(memory[1]) // 1024:,} MiB of memory; "
        f"{'; '.join(filter(None, versions))}. Crates: {crates}. Python packages: {packages}."
    )


def today():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")


def write(section, text):
    """Replaces a section of the page, which stands between two comments."""
    begin, end = f"<!-- {section}: written by a script -->", f"<!-- end of {section} -->"
    page = PAGE.read_text()
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")
