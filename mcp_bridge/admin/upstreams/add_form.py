"""The form of an upstream server, and what a look at it found."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from mcp_bridge.access.definition_review import as_text, suspicions
from mcp_bridge.models import (
    CredentialMode,
    Offer,
    PrimitiveKind,
    UpstreamCredential,
    UpstreamServer,
)
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.problems import UpstreamProblem
from mcp_bridge.upstreams.registration.checks import shared_credential
from mcp_bridge.upstreams.registration.problem_texts import problem_in_words
from mcp_bridge.upstreams.registration.servers import (
    check_header,
    secret_goes_to,
    whole_header,
)

CREDENTIAL_FIELDS = (
    "header",
    "token_url",
    "client_id",
    "client_authentication",
    "scope",
    "audience",
)
PURPOSE = b"portico upstream look"
KEPT_SECONDS = 3600
"""A secret that was entered for a look can be saved for this long."""
MOST_SHOWN = 200

_of_credential: Any = forms.fields_for_model(UpstreamCredential, CREDENTIAL_FIELDS)


class UpstreamForm(forms.ModelForm):  # type: ignore[type-arg]
    """A server and its shared credential; the secret can be set but is never shown."""

    header = _of_credential["header"]
    token_url = _of_credential["token_url"]
    client_id = _of_credential["client_id"]
    client_authentication = _of_credential["client_authentication"]
    scope = _of_credential["scope"]
    audience = _of_credential["audience"]
    secret = forms.CharField(
        label=gettext_lazy("Secret"),
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=gettext_lazy(
            "The value of the header, or the client secret. Stored encrypted. Leave "
            "empty to keep the current one."
        ),
    )
    kept = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = UpstreamServer
        fields = (
            "name",
            "title",
            "url",
            "prefix",
            "enabled",
            "new_definitions",
            "credential_mode",
            "protocol",
            "call_timeout",
            "max_concurrency",
            "calls_per_minute",
        )

    def __init__(self, *args: Any, actor: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor = actor
        for name in ("header", "client_authentication"):
            self.fields[name].required = False
        # Whoever only reads has no field of the model here.
        for name in self.fields.keys() & {"url", "token_url"}:
            self.fields[name].widget.attrs["class"] = "vURLField"
        self.row = shared_credential(self.instance) if self.instance.pk else None
        if self.row is not None:
            for name in CREDENTIAL_FIELDS:
                self.initial.setdefault(name, getattr(self.row, name))
        self.before = secret_goes_to(self.instance, self.row)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        mode = cleaned.get("credential_mode")
        if mode == CredentialMode.STATIC_HEADER:
            self.clean_header_mode(cleaned)
        elif mode == CredentialMode.CLIENT_CREDENTIALS:
            for name in ("token_url", "client_id"):
                if not cleaned.get(name) and name not in self.errors:
                    self.add_error(name, _("This credential needs it."))
        return cleaned

    def clean_header_mode(self, cleaned: dict[str, Any]) -> None:
        name = cleaned["header"] = cleaned.get("header") or "Authorization"
        cleaned["secret"] = whole_header(name, cleaned.get("secret", ""))
        try:
            check_header(name, cleaned["secret"])
        except forms.ValidationError as error:
            self.add_error("header", error)

    def _post_clean(self) -> None:
        """Check the secret when the instance has the new values."""
        super()._post_clean()  # type: ignore[misc]
        if not self.errors and self.needs_secret() and not self.secret_value():
            self.check_stored_secret()

    def needs_secret(self) -> bool:
        mode = self.cleaned_data["credential_mode"]
        if mode == CredentialMode.CLIENT_CREDENTIALS:
            kinds = UpstreamCredential.ClientAuthentication
            return bool(
                self.cleaned_data["client_authentication"] != kinds.PRIVATE_KEY_JWT
            )
        return bool(mode == CredentialMode.STATIC_HEADER)

    def check_stored_secret(self) -> None:
        """The stored secret serves unless it would be sent to another place."""
        if self.row is None or not self.row.secret_encrypted:
            self.add_error("secret", _("Enter the secret."))
        elif secret_goes_to(self.instance, self.unsaved()) != self.before:
            text = _("The secret would go to another URL now. Enter it again.")
            self.add_error("secret", text)

    def unsaved(self) -> UpstreamCredential:
        """A credential with the form's values, without a secret."""
        kinds = UpstreamCredential.ClientAuthentication
        values = {name: self.cleaned_data.get(name) or "" for name in CREDENTIAL_FIELDS}
        values["client_authentication"] = values["client_authentication"] or kinds.BASIC
        row = self.row or UpstreamCredential()
        for name, value in values.items():
            setattr(row, name, value)
        return row

    def credential(self) -> UpstreamCredential | None:
        """The credential to save; None if the mode uses none and none is stored."""
        mode = self.cleaned_data["credential_mode"]
        return None if mode == CredentialMode.NONE else self.unsaved()

    def credential_changed(self) -> bool:
        names = {*CREDENTIAL_FIELDS, "secret", "credential_mode"}
        return bool(names & set(self.changed_data))

    def secret_value(self) -> str:
        """The secret that was entered now, or for the look before."""
        entered: str = self.cleaned_data.get("secret") or ""
        return entered or self.opened(self.cleaned_data.get("kept") or "")

    def about(self) -> bytes:
        """What a kept secret is bound to: the person, and where it is sent."""
        place = secret_goes_to(self.instance, self.unsaved())
        return json.dumps([self.actor and self.actor.pk, place]).encode()

    def sealed(self) -> str:
        """The secret for the next step of the same person, readable by Portico only."""
        content = json.dumps([time.time(), self.secret_value()]).encode()
        return base64.b64encode(seal(PURPOSE, content, self.about())).decode()

    def opened(self, kept: str) -> str:
        """The secret in a result of `sealed`; empty if it is old or for another use."""
        with suppress(KeyUnreadable, ValueError):
            raw = base64.b64decode(kept, validate=True)
            at, secret = json.loads(unseal(PURPOSE, raw, self.about()))
            return str(secret) if time.time() - at < KEPT_SECONDS else ""
        return ""


@dataclass(frozen=True)
class Seen:
    """One offered definition on the page."""

    offer: Offer
    marks: list[str]

    @property
    def kind(self) -> Any:
        return PrimitiveKind(self.offer.kind).label

    @property
    def text(self) -> str:
        return as_text(self.offer.description)

    @property
    def problem(self) -> str:
        return problem_in_words(self.offer.problem)

    @property
    def schema(self) -> str:
        return as_text(dict(self.offer.shown))


@dataclass(frozen=True)
class Looked:
    """The result of a look: what was found, or why nothing was."""

    found: discovery.Found | None
    problem: str
    kept: str

    @property
    def mark(self) -> str:
        """A digest of everything that was offered, or of the problem."""
        offers = self.found.offers if self.found else ()
        text = " ".join(f"{o.kind} {o.name} {o.definition}" for o in offers)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def truncated(self) -> str:
        """Why the lists were cut, in the reader's language."""
        return problem_in_words(self.found.truncated) if self.found else ""

    @property
    def shown(self) -> list[Seen]:
        offers = self.found.offers[:MOST_SHOWN] if self.found else ()
        return [Seen(offer, suspicions(offer.shown)) for offer in offers]

    def may_save(self, post: Any) -> bool:
        """Whether the person saw this before, or saves although nothing answers."""
        if self.found is None:
            return bool(post.get("anyway"))
        return bool(post.get("mark") == self.mark)


def look_at(form: UpstreamForm) -> Looked:
    """Contact the server of a valid form; saves nothing."""
    credential = form.credential()
    if credential is not None:
        credential.secret = form.secret_value()  # type: ignore[attr-defined]
    try:
        found = discovery.look(form.instance, credential)
    except UpstreamProblem as problem:
        return Looked(None, problem_in_words(problem.text), form.sealed())
    return Looked(found, "", form.sealed())
