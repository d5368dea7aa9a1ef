"""Entry of the command: turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
import traceback

from bilevel_cli.exits import Exit


def main() -> None:
    """Run the command line; shows no traceback unless ``BILEVEL_DEBUG`` is set or ``--debug`` comes first."""
    from bilevel_cli.app import app
    from bilevel_core.errors import BilevelError

    debug = os.environ.get("BILEVEL_DEBUG", "").lower() not in ("", "0", "false", "no", "off")
    debug = debug or sys.argv[1:2] == ["--debug"]
    try:
        app(prog_name="bilevel")
    except BilevelError as error:
        if debug:
            traceback.print_exc()
        print(f"bilevel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`bilevel ... | head`): nothing is wrong, and nothing can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
    except KeyboardInterrupt:
        print("bilevel: interrupted", file=sys.stderr)
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last resort: a message for people, a traceback on request
        if debug:
            traceback.print_exc()
        print(f"bilevel: unexpected {type(error).__name__}: {error}", file=sys.stderr)
        print("Set BILEVEL_DEBUG=1 to see where, and please report it.", file=sys.stderr)
        sys.exit(Exit.ERROR)


if __name__ == "__main__":
    main()
