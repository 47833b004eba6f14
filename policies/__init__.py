"""What decides: pure rules over values, with no Ray, clock, randomness or I/O.

Import it as ``runvisor.policies``; the bare name is refused so that no class
can exist twice in one process.
"""

if __name__ != "runvisor.policies":
    raise ImportError(
        f"import it as 'runvisor.policies', not as {__name__!r}: a second copy of the "
        "package would hold second copies of every class"
    )
