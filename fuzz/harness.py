"""What the fuzz targets share: the command line, the engines, the corpus, crash files.

    python fuzz/fuzz_stream.py [--seconds 60 | --runs N | --quick] [--seed N] [--engine auto|atheris|mutate] [FILE ...]

A target is a function ``check(data)`` that raises where its invariant does not hold. It depends on ``data`` alone, so
a file that made it fail makes it fail again: give it as FILE. Seeds are in ``fuzz/corpus/NAME``, each under 4 KiB.

Engines. *atheris* (libFuzzer: chooses octets by the branches of ``xproxy`` that they reach) runs where it is
installed, as a child of its own, since it ends its process. Elsewhere *mutate*, which is blind, and says so.
``--quick`` tries as many inputs as take
about ten seconds, the same ones on each run with the same engine, for CI: what it finds is news of the change.
``--keep DIR`` keeps what atheris found worth keeping. What fails is written to ``--crashes DIR`` and shown as Base64;
exit code 1. An input that takes more than RUN_SECONDS_MAX fails too.
"""

import argparse
import base64
import contextlib
import hashlib
import importlib.util
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = Path(__file__).resolve().parent / "corpus"
SEED_BYTES_MAX = 4_096
SHOWN_BYTES_MAX = 4_096
INPUT_BYTES_MAX = 6_000
POOL_MAX = 500  # inputs that the blind engine walks on from, beside the seeds
RUN_SECONDS_MAX = 30  # one input; a shared machine is slow, an endless loop is slower
_CHILD = "XPROXY_FUZZ_CHILD"

Check = Callable[[bytes], None]

sys.path.insert(0, str(ROOT))


def instrumented() -> contextlib.AbstractContextManager[object]:
    """Import the code under test inside of this: atheris, if it is the engine, then sees its branches."""
    if _CHILD not in os.environ:
        return contextlib.nullcontext()
    import atheris

    context: contextlib.AbstractContextManager[object] = atheris.instrument_imports(include=["xproxy"])
    return context


def rng_of(data: bytes) -> random.Random:
    """Return the randomness of one input: the same each time."""
    return random.Random(zlib.crc32(data))


def seeds_of(name: str) -> list[Path]:
    """Return the committed corpus of a target."""
    return sorted((CORPUS / name).iterdir())


def main(name: str, check: Check, *, words: Sequence[bytes] = (), quick: int) -> int:
    """Run ``check`` as the command line says.

    ``words`` are what its inputs are made of, ``quick`` how many inputs take about ten seconds.
    """
    parser = argparse.ArgumentParser(prog=f"fuzz_{name}.py", description=f"Fuzz target {name}.")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long, unless --runs (default: 10)")
    parser.add_argument("--runs", type=int, default=None, help="how many inputs")
    parser.add_argument("--quick", action="store_true", help=f"the same {quick} inputs on each run")
    parser.add_argument("--seed", type=int, default=None, help="of the engine's randomness (default: random, shown)")
    parser.add_argument("--engine", choices=("auto", "atheris", "mutate"), default="auto")
    parser.add_argument("--keep", type=Path, default=None, help="directory for the inputs that atheris keeps")
    parser.add_argument("--crashes", type=Path, default=Path(), help="directory for an input that fails (default: .)")
    parser.add_argument("files", nargs="*", type=Path, help="try only these")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seed = options.runs or quick, options.seed or 1
    seed = secrets.randbits(31) if options.seed is None else options.seed
    if _CHILD in os.environ:
        return _inside_atheris(check)
    if options.files:
        return _reproduce(name, check, options.files)
    has_atheris = importlib.util.find_spec("atheris") is not None
    if options.engine == "atheris" and not has_atheris:
        parser.error("atheris is not installed: pip install -e '.[fuzz]'")
    if has_atheris and options.engine != "mutate":
        return _run_atheris(name, words, seed, options)
    if options.engine == "auto":
        print(f"{name}: atheris is not installed; mutating blindly", flush=True)
    return _run_mutations(name, check, words, seed, options)


def _reproduce(name: str, check: Check, files: Sequence[Path]) -> int:
    for file in files:
        check_in_time(check, file.read_bytes())  # its traceback is the answer
    print(f"{name}: {len(files)} files, nothing found")
    return 0


def _run_mutations(name: str, check: Check, words: Sequence[bytes], seed: int, options: argparse.Namespace) -> int:
    rng = random.Random(seed)
    seeds = [file.read_bytes() for file in seeds_of(name)]
    pool = list(seeds)
    begin = time.monotonic()
    runs = 0
    while runs < options.runs if options.runs is not None else time.monotonic() - begin < options.seconds:
        # The seeds themselves first.
        data = seeds[runs] if runs < len(seeds) else mutate(rng.choice(pool), pool, words, rng)
        runs += 1
        try:
            check_in_time(check, data)
        except Exception:
            traceback.print_exc()
            path = options.crashes / f"crash-{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            options.crashes.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return _failed(name, path, seed)
        if rng.random() < 0.02:
            pool[len(seeds) :] = [*pool[len(seeds) :], data][-POOL_MAX:]  # walk away from the seeds, not for ever
    return _passed(name, "mutate", seed, runs, time.monotonic() - begin, len(seeds), len(seeds))


def check_in_time(check: Check, data: bytes) -> None:
    """Run ``check``; where it takes too long, fail."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"one input took more than {RUN_SECONDS_MAX} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(RUN_SECONDS_MAX)
    try:
        check(data)
    finally:
        signal.alarm(0)


def mutate(data: bytes, pool: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a neighbour of ``data``: octets changed, dropped, repeated, taken from another input or from ``words``."""
    octets = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randint(0, len(octets))
        match rng.randrange(7):
            case 0 | 1 if words:
                octets[at:at] = rng.choice(words)
            case 2:
                octets[at : at + rng.choice((1, 1, 2, 8, 40))] = b""
            case 3 if octets:
                octets[min(at, len(octets) - 1)] = rng.choice(b"<>/!?-[]'\"&;= \n:ax\x00\xff\xc3" + bytes(range(256)))
            case 4:
                other = rng.choice(pool)
                start = rng.randint(0, len(other))
                octets[at:at] = other[start : start + rng.randint(1, 200)]
            case 5:
                end = min(len(octets), at + rng.randint(1, 40))
                octets[end:end] = octets[at:end]
            case _:
                octets[at:at] = rng.choice((b"\n", b">", b"\0", b"=", b","))
    return bytes(octets[:INPUT_BYTES_MAX])


# atheris ---------------------------------------------------------------------------------------------------------


def _inside_atheris(check: Check) -> int:
    """Hand the process to libFuzzer, whose own arguments are in the environment."""
    import atheris

    atheris.Setup([sys.argv[0], *os.environ[_CHILD].split("\n")], check)
    atheris.Fuzz()
    return 0


def _run_atheris(name: str, words: Sequence[bytes], seed: int, options: argparse.Namespace) -> int:
    seeds = seeds_of(name)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-")))
        keep = scratch / "kept" if options.keep is None else options.keep
        for directory in (keep, options.crashes):
            directory.mkdir(parents=True, exist_ok=True)
        prefix = str(options.crashes.resolve() / f"crash-{name}-")
        (scratch / "words").write_text("".join(_dictionary(words)), encoding="ascii")
        arguments = [
            f"-seed={max(seed, 1)}",  # 0 means random to libFuzzer
            f"-max_total_time={max(1, round(options.seconds))}" if options.runs is None else f"-runs={options.runs}",
            f"-max_len={INPUT_BYTES_MAX}",
            f"-timeout={RUN_SECONDS_MAX}",
            f"-artifact_prefix={prefix}",
            f"-dict={scratch / 'words'}",
            "-print_final_stats=1",
            str(keep),
            str(CORPUS / name),
        ]
        begin = time.monotonic()
        log = scratch / "log"
        with log.open("wb") as out:
            # The options reach libFuzzer in the environment: on the command line they would have to be told from ours.
            code = subprocess.run(
                [sys.executable, sys.argv[0]],
                # A set's order decides which branches are seen.
                env={**os.environ, _CHILD: "\n".join(arguments), "PYTHONHASHSEED": str(seed % 2**32)},
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        said = log.read_text(encoding="utf-8", errors="replace")
    runs = int(_last(r"stat::number_of_executed_units: (\d+)", said) or 0)
    if code != 0 or not runs:
        print(_without_progress(said), file=sys.stderr)
        written = _last(r"Test unit written to (.+)", said)
        return _failed(name, Path(written) if written else None, seed)
    corpus = int(_last(r" corp: (\d+)", said) or 0)
    return _passed(name, "atheris", seed, runs, time.monotonic() - begin, corpus, len(seeds))


def _dictionary(words: Sequence[bytes]) -> list[str]:
    """Return ``words`` in libFuzzer's form; it takes no word above 64 octets."""
    short = [word for word in words if 0 < len(word) <= 64]
    return ['"' + "".join(f"\\x{octet:02x}" for octet in word) + '"\n' for word in short]


def _without_progress(said: str) -> str:
    lines = [
        line for line in said.splitlines() if not re.match(r"#\d+\t|INFO: |\s*NEW_FUNC|Dictionary:|ParseDict", line)
    ]
    return "\n".join(lines[-60:])


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text)
    return str(found[-1]).strip() if found else None


# The answer ------------------------------------------------------------------------------------------------------


def _passed(name: str, engine: str, seed: int, runs: int, seconds: float, corpus: int, seeds: int) -> int:
    rate = runs / max(seconds, 0.001)
    print(
        f"{name}: {engine}, seed {seed}: {runs} runs, {rate:.0f}/s, corpus {corpus} from {seeds} seeds, nothing found"
    )
    return 0


def _failed(name: str, path: Path | None, seed: int) -> int:
    print(f"{name}: FAILED, seed {seed}: {path or 'no input was written'}")
    if path is not None and path.exists():
        data = path.read_bytes()
        print(f"{name}: in Base64: {base64.b64encode(data[:SHOWN_BYTES_MAX]).decode()}")
    return 1
