"""Counts the instructions that a message of each kind takes, by callgrind (Debian's package valgrind).

What runs is the driver count/: gateway, client and server in one thread. The numbers include client and server, whose
share is always the same. With --parent they are compared with those of the commit before this one, or of HEAD where
files have changes that are not committed, both built and counted here and now: more than --most times as many fail. The
driver is that of this commit on both sides. A commit that costs more on purpose says why in its message, in a line
`Costs: REASON` at its end, and passes.
"""

import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DRIVER = pathlib.Path("bench/count")
SETTINGS = pathlib.Path("bench/count.toml")
EXAMPLE = '\n[[example]]\nname = "count"\npath = "bench/count/main.rs"\n'
TARGET = ROOT / "target"
PARENT = TARGET / "parent"
# Runs of the driver, each with several rounds of each kind.
RUNS = 3


def run(*words, **options):
    return subprocess.run([str(word) for word in words], text=True, **options)


def git(*words):
    """What git says, or None where it fails."""
    done = run("git", "-C", ROOT, *words, capture_output=True)
    return done.stdout.strip() if done.returncode == 0 else None


def build(root):
    """Builds the driver of the sources in `root`. Returns a copy of it, or None where it does not compile."""
    cargo = os.environ.get("CARGO", "cargo").split()
    words = ["build", "--locked", "--quiet", "--config", ROOT / SETTINGS, "--target-dir", TARGET, "--example", "count"]
    # One target directory for both: what both depend on is compiled once.
    if run(*cargo, *words, cwd=root).returncode != 0:
        return None
    copy = TARGET / ("count-parent" if root == PARENT else "count-this")
    shutil.copy2(TARGET / "debug/examples/count", copy)
    return copy


def count(driver):
    """The instructions of a message, for each kind: the median of all rounds."""
    counts = {}
    for _ in range(RUNS):
        for kind, instructions in rounds(driver):
            counts.setdefault(kind, []).append(instructions)
    return {kind: statistics.median(of_one) for kind, of_one in counts.items()}


def rounds(driver):
    """Runs the driver once, and gives each round that counts: its kind and the instructions of a message."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        words = ["valgrind", "--tool=callgrind", "--quiet", "--trace-children=no", f"--callgrind-out-file={out}"]
        words += ["--toggle-collect=count::measured", "--dump-after=count::measured"]
        done = run(*words, driver, capture_output=True, timeout=900)
        if done.returncode != 0:
            raise SystemExit(f"{done.stderr}count: {driver} ended with {done.returncode} under callgrind")
        for place, line in enumerate(done.stdout.splitlines(), 1):
            _, messages, kind = line.split(" ", 2)
            text = pathlib.Path(f"{out}.{place}").read_text()
            total = int(re.search(r"^(?:summary|totals): (\d+)", text, re.M).group(1))
            # A round that warms up has no messages.
            if int(messages) > 0:
                yield kind, total / int(messages)


def parent():
    """The commit to compare with, and why this one may cost more, or None. Exits where there is no such commit."""
    if git("status", "--porcelain", "--untracked-files=no"):
        return git("rev-parse", "HEAD"), None
    costs = git("log", "-1", "--format=%(trailers:key=Costs,valueonly,separator=; )")
    if not git("rev-parse", "--verify", "--quiet", "HEAD^1"):
        if git("rev-parse", "--is-shallow-repository") != "true":
            print("count: this is the first commit; there is nothing to compare it with")
            sys.exit(0)
        print("count: this clone is shallow; fetching the commit before this one")
        # A commit that is on no branch of the remote is asked for by its name.
        if git("fetch", "--quiet", "--deepen=1") is None or not git("rev-parse", "--verify", "--quiet", "HEAD^1"):
            git("fetch", "--quiet", "--depth=2", "origin", git("rev-parse", "HEAD"))
        if not git("rev-parse", "--verify", "--quiet", "HEAD^1"):
            sys.exit("count: the commit before this one cannot be fetched, so nothing is compared; try git fetch --deepen=1")
    return git("rev-parse", "HEAD^1"), costs


def check_out(commit):
    """Puts `commit` into PARENT, with the driver of this commit. Returns whether it had one of its own."""
    git("worktree", "prune")
    if not (PARENT / ".git").exists():
        shutil.rmtree(PARENT, ignore_errors=True)
        if git("worktree", "add", "--quiet", "--detach", "--force", PARENT, commit) is None:
            sys.exit(f"count: {commit} cannot be checked out in {PARENT}")
    for words in (["checkout", "--quiet", "--detach", "--force", commit], ["clean", "--quiet", "-d", "--force"]):
        run("git", "-C", PARENT, *words, check=True)
    manifest = PARENT / "Cargo.toml"
    had_one = 'name = "count"' in manifest.read_text()
    if not had_one:
        with manifest.open("a") as file:
            file.write(EXAMPLE)
    shutil.rmtree(PARENT / DRIVER, ignore_errors=True)
    shutil.copytree(ROOT / DRIVER, PARENT / DRIVER)
    return had_one


def of_parent(commit):
    """What the parent needs. None where this commit is the first with a driver, which does not fit the parent."""
    had_one = check_out(commit)
    driver = build(PARENT)
    if driver is None and had_one:
        print("count: the driver of this commit does not fit the parent: counting with that of the parent")
        run("git", "-C", PARENT, "checkout", "--quiet", "--force", commit, "--", DRIVER, check=True)
        driver = build(PARENT) or sys.exit(f"count: {commit} cannot be built")
    if driver is None:
        print(f"count: {commit} has no driver, and that of this commit does not fit it; nothing is compared")
        return None
    return count(driver)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parent", action="store_true", help="compare with the commit before this one")
    arguments.add_argument("--most", type=float, default=1.03, help="(1.03)")
    options = arguments.parse_args()
    if not sys.platform.startswith("linux") or not shutil.which("valgrind"):
        print("count: skipped: it needs Linux and valgrind")
        return int(os.environ.get("SLUICE_REQUIRE_COUNT", "0"))
    commit, costs = parent() if options.parent else (None, None)
    before = of_parent(commit) if commit else None
    driver = build(ROOT) or sys.exit("count: the driver cannot be built")
    after = count(driver)
    print("instructions for one message, client and server included" + (f"; before: {commit[:12]}" if before else ""))
    too_many = []
    for kind, instructions in after.items():
        if before is None or kind not in before:
            print(f"  {kind:40} {instructions:10.0f}")
            continue
        ratio = instructions / before[kind]
        print(f"  {kind:40} {before[kind]:10.0f} {instructions:10.0f} {ratio:7.3f}")
        if ratio > options.most:
            too_many.append(f"{kind}: {instructions:.0f} instructions, {before[kind]:.0f} before")
    for one in too_many:
        print(f"count: {'more, on purpose' if costs else 'FAILED'}: {one}")
    if too_many and costs:
        print(f"count: it costs more on purpose: {costs}")
    elif too_many:
        print(f"count: over {options.most} times as many fail; if that is the price of something, the message of the")
        print("count: commit says so at its end (Costs: REASON)")
    return 1 if too_many and not costs else 0


if __name__ == "__main__":
    sys.exit(main())
