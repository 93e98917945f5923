"""User accounts in the admin: roles, sign-out, deactivation, unlocking."""

from __future__ import annotations

from typing import Any, ClassVar

from allauth.account import admin as allauths_admin
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import unquote
from django.contrib.auth import logout
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import redirect
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin.failed_logins import show_unlock_count
from accounts.admin.people.invitations import INVITE, invite_page_url
from accounts.admin.people.person_panels import person_panels
from accounts.admin.role_assignments import RoleAssignmentInline
from accounts.admin.user_forms import AccountForm, AccountPasswordForm
from accounts.admin.user_summary import user_summary
from accounts.admin_site.base import (
    MAX_LISTED_REFUSALS,
    ActorFormMixin,
    DelegatedAdmin,
    may,
    names,
)
from accounts.admin_site.confirmation import (
    confirmation_page,
    own_session,
    signout_effect,
)
from accounts.admin_site.navigation.groups import Section
from accounts.audit.record import record
from accounts.authentication.lockout import unlock
from accounts.authentication.mfa import reset_mfa
from accounts.authentication.passwords.hashers import prehashed_password
from accounts.authorization.delegation import (
    UNLOCK_PERMISSION,
    more_privileged_users,
    outranks,
    protected_users,
)
from accounts.authorization.mfa_enrollment import with_mfa, without_mfa
from accounts.http.relative_times import time_element
from accounts.models import RoleAssignment, User
from accounts.models.users import LastSuperuser

OWN_RIGHTS = ("is_superuser", "is_staff", "groups", "user_permissions")
"""Fields that grant rights in the admin itself."""


# Staff rights come from predefined groups, and password resets go to the e-mail
# address: editing either would let staff raise their own rights.
for model in (Group, allauths_admin.EmailAddress):
    admin.site.unregister(model)


class FactorFilter(admin.SimpleListFilter):
    """Filter by second factor: has one, has none."""

    title, parameter_name = _("second factor"), "factor"
    querysets: ClassVar[dict[str, Any]] = {"some": with_mfa, "none": without_mfa}

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return [("some", _("has one")), ("none", _("has none"))]

    def queryset(self, request: Any, queryset: Any) -> Any:
        narrow = self.querysets.get(self.value() or "")
        return narrow(queryset) if narrow else queryset


@admin.register(User)
class UserAdmin(ActorFormMixin[User], DelegatedAdmin[User], DjangoUserAdmin):  # type: ignore[type-arg]
    form = AccountForm
    change_password_form = AccountPasswordForm
    noun = "user"
    place = (Section.PEOPLE, 10)
    intro = _(
        "People and programs. Roles decide what they can use. "
        "Changes apply immediately."
    )
    list_display = (
        "username",
        "email",
        "roles_held",
        "is_active",
        "is_staff",
        "last_sign_in",
    )
    search_fields = ("username", "email", "first_name", "last_name")
    list_filter = ("is_active", "is_staff", "role_assignments__role", FactorFilter)
    fieldsets = (
        (None, {"fields": ("username", "password", "is_active", "is_service_account")}),
        (
            _("Personal info"),
            {"fields": ("first_name", "last_name", "email", "email_set_by_admin")},
        ),
        (
            _("Admin permissions"),
            {
                "classes": ("collapse",),
                "fields": OWN_RIGHTS,
                "description": _(
                    "These permissions control what the account can do in the admin."
                ),
            },
        ),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ("groups", "user_permissions")
    inlines = (RoleAssignmentInline,)
    change_form_template = "admin/accounts/user/change_form.html"
    delete_confirmation_template = "admin/accounts/user/delete_confirmation.html"
    delete_selected_confirmation_template = (
        "admin/accounts/user/delete_selected_confirmation.html"
    )
    actions = (
        "delete_selected",
        "revoke_tokens",
        "deactivate",
        "unlock",
        "reset_factors",
    )

    def list_tools(self, request: HttpRequest) -> list[tuple[Any, str]]:
        return [(_("Invite"), invite_page_url())] if may(request, INVITE) else []

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Ending all access needs the same permission as revoking one token."""
        return may(request, "accounts.change_issuedtoken")

    @admin.action(
        description=_("Revoke all tokens of the selected users and sign them out"),
        permissions=["revoke"],
    )
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[User]) -> Any:
        """End all access from the next message on; the actor stays signed in."""
        actor: Any = request.user
        allowed = self.exclude_users(request, queryset, protected_users(actor))
        users = User.objects.filter(pk__in=allowed.order_by().values("pk"))
        keep = own_session(request)
        effect = signout_effect(users.values("pk"), keep)
        page = confirmation_page(
            self, request, str(_("Revoke all tokens and sign out")), effect
        )
        if page is not None:
            return page
        tokens, browsers = users.revoke_all_sessions(
            actor=request.user, reason="revoked in the admin", keep=request
        )
        message = ngettext("%d token revoked.", "%d tokens revoked.", tokens) % tokens
        out = ngettext("%d browser signed out.", "%d browsers signed out.", browsers)
        self.message_user(request, f"{message} {out % browsers}", messages.SUCCESS)
        return None

    @admin.action(
        description=_("Deactivate the selected users"), permissions=["change"]
    )
    def deactivate(self, request: HttpRequest, queryset: Any) -> Any:
        """Deactivate the accounts and revoke their tokens."""
        actor: Any = request.user
        allowed = self.exclude_users(request, queryset, more_privileged_users(actor))
        active = User.objects.filter(
            pk__in=list(allowed.order_by().values_list("pk", flat=True)), is_active=True
        )
        if not self.leaves_superuser(request, active):
            return None
        own = active.filter(pk=actor.pk).exists()
        page = confirmation_page(
            self,
            request,
            str(_("Deactivate users")),
            deactivation_effect(request, active),
        )
        if page is not None:
            return page
        for user in active:
            self.record_change(request, "deactivated", user)
        count = active.deactivate(actor=request.user)
        message = ngettext("%d user deactivated.", "%d users deactivated.", count)
        return self.sign_out_if(own, request, message % count)

    @admin.action(
        description=_("Delete selected %(verbose_name_plural)s"), permissions=["delete"]
    )
    def delete_selected(self, request: HttpRequest, queryset: Any) -> Any:
        """Django's action, which never deletes the last superuser."""
        if not self.leaves_superuser(request, queryset):
            return None
        own = queryset.filter(pk=request.user.pk).exists()
        page: Any = delete_selected(self, request, queryset)
        if page is not None:
            page.context_data["own_account"] = own
            return page
        return self.sign_out_if(own, request)

    def leaves_superuser(self, request: HttpRequest, users: Any) -> bool:
        """Whether a superuser is left without these users; a message says if not."""
        try:
            User.objects.filter(
                pk__in=users.order_by().values("pk")
            ).refuse_last_superuser()
        except LastSuperuser as error:
            self.message_user(request, error.message, messages.ERROR)
            return False
        return True

    def sign_out_if(self, own: bool, request: HttpRequest, message: str = "") -> Any:
        """Redirect an actor whose own account has ended: the session has, too."""
        if own:
            logout(request)
        if message:
            self.message_user(request, message, messages.SUCCESS)
        return redirect("account_login") if own else None

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> Any:
        """Refuse the last superuser; warn before deleting the actor's own account."""
        user = self.get_object(request, object_id)
        if user is None or not self.has_delete_permission(request, user):
            return super().delete_view(request, object_id, extra_context)
        account = User.objects.filter(pk=user.pk)
        if not self.leaves_superuser(request, account):
            return redirect("admin:accounts_user_change", object_id)
        own = user.pk == request.user.pk
        context = {**(extra_context or {}), "own_account": own}
        answer = super().delete_view(request, object_id, context)
        gone = own and not account.exists()
        return self.sign_out_if(gone, request) or answer

    def exclude_users(
        self, request: HttpRequest, users: Any, others: QuerySet[User]
    ) -> Any:
        """The selected users without `others`; a message names those."""
        excluded = users.filter(pk__in=others).order_by("username")
        excluded_names = list(
            excluded.values_list("username", flat=True)[: MAX_LISTED_REFUSALS + 1]
        )
        if excluded_names:
            more = " ..." if len(excluded_names) > MAX_LISTED_REFUSALS else ""
            message = _(
                "Skipped, because these users have more permissions than you: %s"
            )
            listed = ", ".join(excluded_names[:MAX_LISTED_REFUSALS]) + more
            self.message_user(request, message % listed, messages.ERROR)
        return users.exclude(pk__in=others)

    def has_unlock_permission(self, request: HttpRequest) -> bool:
        """Unlocking needs no permission to change accounts."""
        return may(request, UNLOCK_PERMISSION)

    @admin.action(description=_("Unlock the selected users"), permissions=["unlock"])
    def unlock(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Reset the failed sign-ins counted for these accounts.

        Administrators are left out: unlocking them would allow unlimited guesses.
        """
        actor: Any = request.user
        others = protected_users(actor, UNLOCK_PERMISSION)
        count = sum(
            unlock(username=user.username, actor=actor)
            for user in self.exclude_users(request, queryset, others)
        )
        show_unlock_count(self, request, count)

    @admin.action(
        description=_("Reset two-factor authentication (device lost)"),
        permissions=["change"],
    )
    def reset_factors(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Skip accounts with more rights: a missing factor makes takeover easier.

        The actor's own factors are removed in the portal, which asks for the password.
        """
        actor: Any = request.user
        if queryset.filter(pk=actor.pk).exists():
            warning = _("Remove your own second factor in the portal under Security.")
            self.message_user(request, warning, messages.ERROR)
        allowed = self.exclude_users(
            request, queryset, more_privileged_users(actor)
        ).exclude(pk=actor.pk)
        count = sum(reset_mfa(user, actor=actor, keep=request) for user in allowed)
        message = (
            ngettext("%d second factor removed.", "%d second factors removed.", count)
            % count
        )
        self.message_user(request, message, messages.SUCCESS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """Prefetch the roles."""
        rows = super().get_queryset(request)
        return rows.prefetch_related("role_assignments__role")

    @admin.display(description=_("last sign-in"))
    def last_sign_in(self, obj: User) -> Any:
        """When they last signed in. Not sortable: the column has no index."""
        return time_element(obj.last_login) if obj.last_login else _("never")

    @admin.display(description=_("roles"))
    def roles_held(self, obj: User) -> str:
        """Names of the roles whose assignment has not expired."""
        assignments = [a for a in obj.role_assignments.all() if not a.expired]
        return names(a.role for a in assignments) or "-"

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Hash the password before Django opens the transaction around the form."""
        with prehashed_password(request.POST.get("password1", "")):
            return super().add_view(request, form_url, extra_context)

    def change_view(
        self,
        request: Any,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        """Add the summary of tokens, sign-ins and refusals."""
        user = self.get_object(request, object_id)
        context = dict(extra_context or {})
        if user is not None and self.has_view_permission(request, user):
            context["at_a_glance"] = user_summary(request, user)
            context |= person_panels(request, user)
        return super().change_view(request, object_id, form_url, context)

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> Any:
        """The actor's own password has another page, which asks for the old one."""
        if unquote(id) == str(request.user.pk):
            return redirect("account_change_password")
        return super().user_change_password(request, id, form_url)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """On a superuser's own page, add the box that confirms ending their access."""
        fieldsets = super().get_fieldsets(request, obj)
        own = obj is not None and obj.pk == request.user.pk
        if not (own and request.user.is_superuser):
            return fieldsets
        (title, options), *others = fieldsets
        fields = (*options["fields"], "end_own_access")
        return ((title, {**options, "fields": fields}), *others)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only superusers grant rights in the admin."""
        fixed = super().get_readonly_fields(request, obj)
        return fixed if request.user.is_superuser else (*fixed, *OWN_RIGHTS)

    def may_change_row(self, actor: Any, obj: User) -> bool:
        """No user may change an account with more rights than their own."""
        return not outranks(actor, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Permission to delete an account covers the rows that depend on it."""
        objects, counts, needed, protected = super().get_deleted_objects(objs, request)
        permissions = {self.opts.verbose_name} & set(needed)
        return objects, counts, permissions, protected

    def save_model(
        self, request: HttpRequest, obj: User, form: Any, change: bool
    ) -> None:
        """Save; deactivating an account also revokes its tokens."""
        if "email" in form.changed_data:
            # An unchanged box describes the old address, so it must not apply to
            # the new one.
            box_changed = "email_set_by_admin" in form.changed_data
            obj.email_set_by_admin = obj.email_set_by_admin or not box_changed
        super().save_model(request, obj, form, change)
        if change and "is_active" in form.changed_data and not obj.is_active:
            self.revoke_access(request, obj, "account deactivated")

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        """Revoke first: the tokens' rows outlive the account."""
        self.revoke_access(request, obj, "account deleted")
        super().delete_model(request, obj)

    def revoke_access(self, request: HttpRequest, user: User, reason: str) -> None:
        """End all access except the browser session of this request."""
        account = User.objects.filter(pk=user.pk)
        account.revoke_all_sessions(actor=request.user, reason=reason, keep=request)

    def save_formset(
        self, request: HttpRequest, form: Any, formset: Any, change: bool
    ) -> None:
        """Save role assignments with the model's methods; records each change."""
        if formset.model is not RoleAssignment:
            super().save_formset(request, form, formset, change)
            return
        for assignment in formset.save(commit=False):
            new = assignment.pk is None
            assignment.granted_by = request.user
            assignment.save()
            verb = "granted" if new else "extended"
            self.record_role_change(request, verb, assignment)
        for assignment in formset.deleted_objects:
            self.record_role_change(request, "withdrawn", assignment)
            assignment.withdraw(actor=request.user, keep=request)

    def record_role_change(
        self, request: HttpRequest, verb: str, assignment: RoleAssignment
    ) -> None:
        record(
            f"role.{verb}",
            actor=request.user,
            request=request,
            object=assignment,
            reason=assignment.reason,
        )


def deactivation_effect(request: HttpRequest, users: Any) -> str:
    """The effect of deactivating these accounts, as text with counts."""
    count = users.count()
    message = ngettext(
        "This deactivates %d account.", "This deactivates %d accounts.", count
    )
    if users.filter(pk=request.user.pk).exists():
        warning = _("Your own account is among them: you will be signed out.")
        message = f"{warning} {message}"
    signout = signout_effect(users.order_by().values("pk"), own_session(request))
    return f"{message % count} {signout}"
