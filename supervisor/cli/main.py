"""The ``runvisor`` command: wires the commands together and turns errors into exit statuses.

Exit status: 0 ok, 1 the guest failed, 2 bad use, 3 refused by policy, 4 limit
exceeded, 5 our own failure.
"""

from __future__ import annotations

import sys

import typer

from runvisor.policies.errors import RunvisorError
from runvisor.supervisor.cli import doctor, humaneval, observe, plan, policy, replay, run_code, session, top
from runvisor.supervisor.cli.output import print_error

app = typer.Typer(
    name="runvisor",
    help="Run code that AI agents write, each piece in the right sandbox at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run_code.run)
app.command("replay")(replay.replay)
app.command("session")(session.session)
app.command("plan")(plan.plan)
app.add_typer(policy.policy, name="policy")
app.command("observe")(observe.observe)
app.command("top")(top.top)
app.command("doctor")(doctor.doctor)
app.command("humaneval")(humaneval.humaneval)


def run() -> None:
    """Run the command line and exit with its status."""
    as_json = "--json" in sys.argv[1:]
    try:
        status = int(app(standalone_mode=False) or 0)  # what typer.Exit was raised with
    except RunvisorError as error:
        print_error(error, as_json=as_json)
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        print(f"runvisor: {usage()}", file=sys.stderr)
        status = 2
    sys.exit(status)
