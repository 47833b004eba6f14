"""What runs code: pools, channels, the jail and one folder per runtime.

Import it as ``runvisor.actors``; the bare name is refused so that no class
can exist twice in one process.
"""

if __name__ != "runvisor.actors":
    raise ImportError(
        f"import it as 'runvisor.actors', not as {__name__!r}: a second copy of the "
        "package would hold second copies of every class"
    )
