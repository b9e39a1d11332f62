"""A vendor's key: sent to the vendor, and kept out of everything that is said, stored or logged."""

from __future__ import annotations

import logging
from urllib.parse import quote_plus

from pydantic import SecretStr

from quantlytic_assets.vendors.protocol import VendorError

_HIDDEN = "<key>"
# Shorter beginnings of a key at the end of a cut text are as likely to be anything else.
_LEAST_TELLING = 4


class ApiKey:
    """`secret` as the settings have it; `variable` is where users set it."""

    def __init__(self, secret: SecretStr | None, variable: str):
        self.value = secret.get_secret_value().strip() if secret is not None else ""
        self._variable = variable

    def unsupported(self) -> str | None:
        """Why nothing can be asked with this key; None where it looks like one."""
        if not self.value:
            return f"no key: set {self._variable} in the environment"
        if not (self.value.isascii() and self.value.isprintable()):
            return f"{self._variable} holds characters that no key has: copy it anew"
        return None

    def hidden(self, text: str) -> str:
        """`text` without the key, also where it was cut in the middle of it. Vendors repeat keys in their answers."""
        if not self.value:
            return text
        for form in (self.value, quote_plus(self.value)):
            text = text.replace(form, _HIDDEN)
        if text.endswith("…"):
            whole = text.removesuffix("…").rstrip()
            for length in range(len(self.value) - 1, _LEAST_TELLING - 1, -1):
                if whole.endswith(self.value[:length]):
                    return whole[:-length] + _HIDDEN + " …"
        return text

    def without(self, error: VendorError) -> VendorError:
        """The same error, with the key hidden."""
        return VendorError(self.hidden(str(error)), error.retryable, error.retry_after, error.opens_circuit)

    def keep_out_of_logs(self) -> None:
        """urllib3 logs each address it asks, parameters included, for whoever listens to it at level DEBUG."""
        _hide_in_logs.keys[self.value] = self
        logging.getLogger("urllib3.connectionpool").addFilter(_hide_in_logs)


class _HideInLogs(logging.Filter):
    """Takes known keys out of what is filled into a message."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, ApiKey] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(self._hidden(arg) for arg in record.args)
        return True

    def _hidden(self, arg: object) -> object:
        if isinstance(arg, str):
            for key in self.keys.values():
                arg = key.hidden(arg)
        return arg


_hide_in_logs = _HideInLogs()
