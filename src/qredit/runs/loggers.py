"""Where the metrics go beside metrics.jsonl: the services that `report_to` names, each found usable beforehand."""

from collections.abc import Sequence

from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks

from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error


def parse_report_to(report_to: str | Sequence[str] | None) -> list[str]:
    """The services in a list or a text with commas between them; 'all' are those that are installed.

    Raises:
        QreditError: a service that transformers does not know, or whose package is not installed.
    """
    names = report_to.split(",") if isinstance(report_to, str) else report_to or []
    named = [str(name).strip() for name in names]
    if named == ["all"]:
        return list(get_available_reporting_integrations())
    wanted = [] if named == ["none"] else named
    for name in wanted:
        _try(name)
    return wanted


def _try(name: str) -> None:
    """Make a service's callback and drop it: the trainer would make it only after the model has been loaded."""
    try:
        for callback in get_reporting_integration_callbacks([name]):
            callback()
    except (ValueError, ImportError, RuntimeError) as error:
        raise QreditError(f"report_to: {summarize_error(error)}") from error
