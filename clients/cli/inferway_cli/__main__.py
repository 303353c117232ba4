"""`python -m inferway_cli` is `inferway`. Imported late, so that Ctrl-C has no traceback while the imports run."""


def main() -> int:
    """Runs the process's command line and returns its exit code."""
    try:
        from inferway_cli.app import main as run_command_line  # noqa: PLC0415

        return run_command_line()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
