"""What users touch and what coordinates: client, manager, plans, command line.

Import it as ``runvisor.supervisor``; the bare name is refused so that no class
can exist twice in one process.
"""

if __name__ != "runvisor.supervisor":
    raise ImportError(
        f"import it as 'runvisor.supervisor', not as {__name__!r}: a second copy of the "
        "package would hold second copies of every class"
    )
