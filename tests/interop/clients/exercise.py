"""What every Python client does with server-everything, whatever its own API looks like.

Each client hands over two coroutines: `tools()` gives the names of the tools, `call(name, arguments, on_progress)` gives
(is it an error, its text). A difference ends the program with what differed.
"""

import asyncio
import sys

CALLS_AT_ONCE = 16
TIME_LIMIT = 60


class Different(Exception):
    """The answer is not what the server gives."""


def same(what, wanted, got):
    if wanted != got:
        raise Different(f"{what}: wanted {wanted!r}, got {got!r}")


async def exercise(tools, call, marker):
    names = await tools()
    for name in ("echo", "get-sum", "trigger-long-running-operation"):
        if name not in names:
            raise Different(f"tools/list has no {name}: {names}")

    # Beyond ASCII, and what JSON, SSE and line framing are tempted to alter.
    odd = f"{marker} žluťoučký 🦀 \u2028 \\n \"quoted\"\n\ttwo lines\r\n"
    same("echo", (False, f"Echo: {odd}"), await call("echo", {"message": odd}))
    same("get-sum", (False, "The sum of 2 and 5 is 7."), await call("get-sum", {"a": 2, "b": 5}))

    await echoes(call, marker, CALLS_AT_ONCE)

    seen = []
    failed, text = await call(
        "trigger-long-running-operation", {"duration": 0.3, "steps": 3}, lambda done, total: seen.append((done, total))
    )
    same("long operation", (False, True), (failed, text.startswith("Long running operation completed.")))
    # Some SDKs lose a progress that arrives together with the answer; test_same_ids.py looks at the wire itself.
    same("progress", [(1, 3), (2, 3)], [step for step in seen if step != (3, 3)])

    try:
        failed, text = await call("no-such-tool", {})
    except Exception as error:  # each SDK has its own type for a JSON-RPC error
        failed, text = True, str(error)
    same("unknown tool", (True, True), (failed, "no-such-tool" in text))


async def echoes(call, marker, count):
    async def one(number):
        text = f"{marker}/{number}"
        same("echo among others", (False, f"Echo: {text}"), await call("echo", {"message": text}))

    await asyncio.gather(*(one(number) for number in range(count)))


async def crowd(call, marker):
    """Says that it is connected, waits for the others, then asks much at once."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for wave in range(5):
        await echoes(call, f"{marker}/{wave}", CALLS_AT_ONCE)


async def over_the_limit(call):
    """Calls more at once than the server takes: some are answered, the others have an error each, and the session goes on."""
    operation = "trigger-long-running-operation"
    for _ in range(3):
        done = await asyncio.gather(*(call(operation, {"duration": 1, "steps": 1}) for _ in range(40)), return_exceptions=True)
        errors = [str(one) for one in done if isinstance(one, Exception)]
        answered = [one for one in done if not isinstance(one, Exception)]
        if len(answered) < 4 or len(errors) < 20:
            raise Different(f"{len(answered)} answers and {len(errors)} errors: {errors[:2]}")
        same("accepted calls", {(False, True)}, {(failed, text.startswith("Long running")) for failed, text in answered})
        same("errors", {True}, {"too many calls are waiting" in error for error in errors})
        same("the session", (False, "Echo: goes on"), await call("echo", {"message": "goes on"}))


def main(client):
    """Runs `client(url, key, variant, work)`, as `CLIENT URL KEY [VARIANT [MARKER]]`.

    With the MARKER `limit` it calls more than the server takes; with another it is one of a crowd; without, it goes through
    everything alone.
    """
    url, key, variant, marker = (sys.argv[1:] + ["", ""])[:4]

    async def work(tools, call):
        if marker == "limit":
            return await over_the_limit(call)
        await (crowd(call, marker) if marker else exercise(tools, call, "alone"))

    asyncio.run(asyncio.wait_for(client(url, key, variant, work), TIME_LIMIT))
    print("ok", flush=True)
