"""TLS: the gateway's certificate, read again when it is renewed, and those of its callers."""

from __future__ import annotations

import asyncio
import logging
import ssl

from cryptography import x509

from wanwu.errors import SetupError
from wanwu.gateway.checks import stamp
from wanwu.gateway.settings import GatewaySettings

#: Under this name a request's state has the subject of its caller's certificate.
SUBJECT = "client_subject"

log = logging.getLogger("wanwu.gateway")


class ServerCertificate:
    """The certificate and its key, and the authorities of callers' certificates, as they are now.

    Files that have become unusable change nothing.

    Args:
        settings: the gateway's; they name the files.

    Raises:
        SetupError: the files cannot be used at the beginning.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._seen = self._stamps()
        self.context = self._newest = self._read()
        # It is called at each handshake, whether or not the caller names a host.
        self.context.sni_callback = self._choose

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read the files again if they have changed, or at once."""
        seen = self._stamps()
        if seen == self._seen and not at_once:
            return
        self._seen = seen
        try:
            self._newest = self._read()
        except SetupError as error:
            log.error("the certificate stays as it was: %s", error)
        else:
            log.info("the certificate was read again: %s", self._settings.tls_cert)

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext
    ) -> None:
        connection.context = self._newest

    def _stamps(self) -> list[object]:
        settings = self._settings
        files = (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        return [stamp(each) for each in files if each is not None]

    def _read(self) -> ssl.SSLContext:
        """Return a context of the files; one changed in place could keep half of a pair."""
        settings = self._settings
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(str(settings.tls_cert), settings.tls_key)
        except OSError as error:
            raise SetupError(
                "the certificate {0} and its key {1} cannot be used: {2}; expected PEM files that "
                "belong together",
                settings.tls_cert,
                settings.tls_key,
                error,
            ) from error
        if settings.tls_client_ca is None:
            return context
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except OSError as error:
            raise SetupError(
                "the authorities {0} of callers' certificates cannot be used: {1}; expected a PEM "
                "file",
                settings.tls_client_ca,
                error,
            ) from error
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


def subject_of(transport: asyncio.BaseTransport) -> str | None:
    """Return the subject of a caller's certificate as RFC 4514 writes it; None without one."""
    tls = transport.get_extra_info("ssl_object")
    shown = tls and tls.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).subject.rfc4514_string() if shown else None
