import accounts.http.ip_networks
import accounts.models.identity_providers
import accounts.models.users
import accounts.parsing.host_names
import django.contrib.auth.validators
import django.core.validators
import django.db.models.deletion
import django.utils.timezone
import oauth2_provider.generators
import oauth2_provider.models
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditHead',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField(default=0)),
                ('digest', models.CharField(blank=True, max_length=64)),
                ('mac', models.CharField(max_length=64)),
            ],
        ),
        migrations.CreateModel(
            name='AuditSeal',
            fields=[
                ('number', models.PositiveIntegerField(primary_key=True, serialize=False, verbose_name='number')),
                ('previous', models.CharField(help_text="The digest of the previous seal.", max_length=64, unique=True, verbose_name='previous')),
                ('after_id', models.BigIntegerField(verbose_name="after ID")),
                ('last_id', models.BigIntegerField(verbose_name="last ID")),
                ('events', models.PositiveIntegerField(verbose_name='events')),
                ('first_at', models.DateTimeField(verbose_name='from')),
                ('last_at', models.DateTimeField(verbose_name='to')),
                ('content', models.CharField(help_text="The SHA-256 digest of the events.", max_length=64, verbose_name='content')),
                ('digest', models.CharField(max_length=64, unique=True, verbose_name='digest')),
                ('marks', models.BinaryField(default=b'', verbose_name='marks')),
                ('mac', models.CharField(default='', max_length=64)),
                ('sealed_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='sealed at')),
                ('purged_at', models.DateTimeField(blank=True, help_text="The time when retention deleted the events.", null=True, verbose_name='purged at')),
            ],
            options={
                'verbose_name': 'audit seal',
                'verbose_name_plural': 'audit seals',
                'ordering': ('-number',),
            },
        ),
        migrations.CreateModel(
            name='DocumentHost',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('host', accounts.parsing.host_names.HostField(help_text="Enter a host name such as claude.ai, without scheme, port "
            "or path.", max_length=255, unique=True, verbose_name='host')),
                ('trusted', models.BooleanField(default=True, help_text="If on, clients of this host are verified. If off, they "
            "are blocked.", verbose_name='trusted')),
            ],
            options={
                'verbose_name': 'client document host',
                'verbose_name_plural': 'client document hosts',
                'ordering': ('host',),
            },
        ),
        migrations.CreateModel(
            name='Role',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100, unique=True, verbose_name='name')),
                ('description', models.CharField(blank=True, max_length=255, verbose_name='description')),
                ('networks', models.TextField(blank=True, default='', help_text="Enter IP addresses or networks such as 10.0.0.0/8, "
            "separated by spaces. Leave empty to allow any address.", validators=[accounts.http.ip_networks.validate_networks], verbose_name="allowed IP addresses")),
            ],
            options={
                'verbose_name': 'role',
                'verbose_name_plural': 'roles',
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='Scope',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=255, unique=True, validators=[django.core.validators.RegexValidator('\\A[\\x21\\x23-\\x5B\\x5D-\\x7E]+\\Z', 'A scope must be printable ASCII without spaces, quotes or backslashes (RFC 6749).')], verbose_name='name')),
                ('description', models.CharField(blank=True, help_text="Explain in plain words what this scope allows.", max_length=255, verbose_name='description')),
            ],
            options={
                'verbose_name': 'scope',
                'verbose_name_plural': 'scopes',
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='SignInProvider',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.SlugField(help_text="This name is part of the callback URL: "
            "/accounts/oidc/NAME/...", unique=True, verbose_name='short name')),
                ('name', models.CharField(help_text="The sign-in button shows this name.", max_length=40, verbose_name='name')),
                ('issuer', models.CharField(help_text="The URL without /.well-known/openid-configuration.", max_length=255, validators=[accounts.models.identity_providers.https_or_loopback], verbose_name='issuer')),
                ('client_id', models.CharField(max_length=191, verbose_name="client ID")),
                ('secret_encrypted', models.TextField(blank=True, editable=False)),
                ('enabled', models.BooleanField(default=True, verbose_name='enabled')),
                ('sign_up', models.BooleanField(default=False, help_text="If on, users who sign in for the first time get an "
            "account.", verbose_name="create accounts on first sign-in")),
                ('link_by_email', models.BooleanField(default=False, help_text="If on, a verified email address links to the account that "
            "has this address.", verbose_name="link accounts by verified email")),
                ('roles_last', models.PositiveSmallIntegerField(default=30, help_text="Roles end this many days after the last sign-in through "
            "this provider.", validators=[django.core.validators.MinValueValidator(1)], verbose_name="role lifetime (days)")),
            ],
            options={
                'verbose_name': 'sign-in provider',
                'verbose_name_plural': 'sign-in providers',
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='UsedAssertion',
            fields=[
                ('key', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('until', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='User',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('password', models.CharField(max_length=128, verbose_name='password')),
                ('last_login', models.DateTimeField(blank=True, null=True, verbose_name='last login')),
                ('is_superuser', models.BooleanField(default=False, help_text='Designates that this user has all permissions without explicitly assigning them.', verbose_name='superuser status')),
                ('username', models.CharField(error_messages={'unique': 'A user with that username already exists.'}, help_text='Required. 150 characters or fewer. Letters, digits and @/./+/-/_ only.', max_length=150, unique=True, validators=[django.contrib.auth.validators.UnicodeUsernameValidator()], verbose_name='username')),
                ('first_name', models.CharField(blank=True, max_length=150, verbose_name='first name')),
                ('last_name', models.CharField(blank=True, max_length=150, verbose_name='last name')),
                ('is_staff', models.BooleanField(default=False, help_text='Designates whether the user can log into this admin site.', verbose_name='staff status')),
                ('is_active', models.BooleanField(default=True, help_text='Designates whether this user should be treated as active. Unselect this instead of deleting accounts.', verbose_name='active')),
                ('date_joined', models.DateTimeField(default=django.utils.timezone.now, verbose_name='date joined')),
                ('is_service_account', models.BooleanField(default=False, help_text="This account is a program. It signs in with client "
            "credentials.", verbose_name='is service account')),
                ('session_epoch', models.PositiveIntegerField(default=0, editable=False)),
                ('email', accounts.models.users.AddressField(blank=True, max_length=254, verbose_name='email address')),
                ('email_set_by_admin', models.BooleanField(default=True, help_text="If off, a sign-in provider supplied the address. "
            "Providers link accounts only by an address that an "
            "administrator set.", verbose_name="email set by an administrator")),
                ('groups', models.ManyToManyField(blank=True, help_text='The groups this user belongs to. A user will get all permissions granted to each of their groups.', related_name='user_set', related_query_name='user', to='auth.group', verbose_name='groups')),
                ('user_permissions', models.ManyToManyField(blank=True, help_text='Specific permissions for this user.', related_name='user_set', related_query_name='user', to='auth.permission', verbose_name='user permissions')),
            ],
            options={
                'verbose_name': 'user',
                'verbose_name_plural': 'users',
                'ordering': ('username',),
                'permissions': (('view_system', 'Can view the system page'), ('unlock_user', 'Can unlock locked-out accounts')),
                'abstract': False,
            },
            managers=[
                ('objects', accounts.models.users.UserManager()),
            ],
        ),
        migrations.CreateModel(
            name='AuditEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True, default=django.utils.timezone.now, verbose_name='when')),
                ('action', models.CharField(help_text="The name of the event, for example tool.called.", max_length=64, verbose_name='action')),
                ('actor', models.CharField(blank=True, max_length=150, verbose_name='actor')),
                ('actor_id', models.BigIntegerField(blank=True, null=True, verbose_name="actor ID")),
                ('client_id', models.CharField(blank=True, max_length=255, verbose_name='client')),
                ('token_id', models.CharField(blank=True, help_text="The jti of the token that was used or changed. The token "
            "itself is never stored.", max_length=64, verbose_name="token ID")),
                ('address', models.CharField(blank=True, max_length=45, verbose_name='address')),
                ('object', models.CharField(blank=True, max_length=255, verbose_name='object')),
                ('decision', models.CharField(blank=True, choices=[('', "no decision"), ('allowed', 'allowed'), ('denied', 'denied')], default='', max_length=8, verbose_name='decision')),
                ('reason', models.CharField(blank=True, max_length=255, verbose_name='reason')),
                ('via', models.CharField(blank=True, help_text="The rule or row that led to the decision.", max_length=255, verbose_name="matched rule")),
                ('outcome', models.CharField(blank=True, help_text="The result of a call: ok or error.", max_length=16, verbose_name='outcome')),
                ('duration_ms', models.FloatField(blank=True, null=True, verbose_name='duration (ms)')),
                ('request_id', models.CharField(blank=True, max_length=64, verbose_name="request ID")),
                ('changes', models.JSONField(blank=True, default=dict, help_text="The changed fields, each as [before, after].", verbose_name='changes')),
            ],
            options={
                'verbose_name': 'audit event',
                'verbose_name_plural': 'audit events',
                'ordering': ('-at', '-id'),
                'base_manager_name': 'objects',
                'indexes': [models.Index(fields=['action', 'at'], name='audit_action'), models.Index(fields=['actor', 'at'], name='audit_actor'), models.Index(fields=['actor_id', 'at'], name='audit_actor_id'), models.Index(fields=['client_id', 'at'], name='audit_client'), models.Index(fields=['token_id', 'at'], name='audit_token'), models.Index(fields=['request_id'], name='audit_request'), models.Index(fields=['object', 'at'], name='audit_object', opclasses=['varchar_pattern_ops', 'timestamptz_ops']), models.Index(condition=models.Q(('decision', 'denied')), fields=['reason', 'at'], name='audit_refusals'), models.Index(condition=models.Q(('decision', 'denied')), fields=['at'], name='audit_denied'), models.Index(condition=models.Q(('decision', '')), fields=['at'], name='audit_undecided')],
            },
        ),
        migrations.CreateModel(
            name='AuditHour',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hour', models.DateTimeField()),
                ('facet', models.CharField(choices=[('messages', 'messages decided'), ('action', 'events by action'), ('object', "messages by target"), ('actor', 'messages by user'), ('client', 'messages by client'), ('reason', "denials by reason"), ('duration', "allowed messages by duration")], max_length=8)),
                ('value', models.CharField(blank=True, max_length=255)),
                ('allowed', models.PositiveIntegerField()),
                ('denied', models.PositiveIntegerField()),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('facet', 'hour', 'value'), name='one_row_per_hour_and_value')],
            },
        ),
        migrations.CreateModel(
            name='OAuthClient',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('client_id', models.CharField(db_index=True, default=oauth2_provider.generators.generate_client_id, max_length=255, unique=True, verbose_name='client ID')),
                ('redirect_uris', models.TextField(blank=True, help_text='Allowed URIs list, space separated', verbose_name='redirect URIs')),
                ('post_logout_redirect_uris', models.TextField(blank=True, default='', help_text='Allowed Post Logout URIs list, space separated', verbose_name='post logout redirect URIs')),
                ('client_type', models.CharField(choices=[('confidential', 'Confidential'), ('public', 'Public')], max_length=32, verbose_name='client type')),
                ('authorization_grant_type', models.CharField(choices=[('authorization-code', 'Authorization code'), ('urn:ietf:params:oauth:grant-type:device_code', 'Device Code'), ('implicit', 'Implicit'), ('password', 'Resource owner password-based'), ('client-credentials', 'Client credentials'), ('openid-hybrid', 'OpenID connect hybrid')], max_length=44, verbose_name='authorization grant type')),
                ('client_secret', oauth2_provider.models.ClientSecretField(blank=True, db_index=True, default=oauth2_provider.generators.generate_client_secret, help_text='Client secret for authentication', max_length=255, verbose_name='client secret')),
                ('hash_client_secret', models.BooleanField(default=True, verbose_name='hash client secret')),
                ('name', models.CharField(blank=True, max_length=255, verbose_name='name')),
                ('skip_authorization', models.BooleanField(default=False, verbose_name='skip authorization')),
                ('created', models.DateTimeField(auto_now_add=True, verbose_name='created')),
                ('updated', models.DateTimeField(auto_now=True, verbose_name='updated')),
                ('algorithm', models.CharField(blank=True, choices=[('', 'No OIDC support'), ('RS256', 'RSA with SHA-2 256'), ('HS256', 'HMAC with SHA-2 256')], default='', max_length=5, verbose_name='algorithm')),
                ('allowed_origins', models.TextField(blank=True, default='', help_text='Allowed origins list to enable CORS, space separated', verbose_name='allowed origins')),
                ('registration_source', models.CharField(choices=[('manual', 'Manual'), ('dcr', 'Dynamic Client Registration'), ('cimd', 'Client ID Metadata Document')], default='manual', help_text='How this application was registered (manual, DCR per RFC 7591, or CIMD)', max_length=32, verbose_name='registration source')),
                ('cimd_expires_at', models.DateTimeField(blank=True, default=None, help_text='When the cached Client ID Metadata Document should be re-fetched', null=True, verbose_name='CIMD expires at')),
                ('token_endpoint_auth_method', models.CharField(choices=[('none', 'none'), ('client_secret_basic', 'client_secret_basic'), ('client_secret_post', 'client_secret_post'), ('private_key_jwt', 'private_key_jwt')], default='none', max_length=32, verbose_name='token endpoint auth method')),
                ('grant_types', models.JSONField(blank=True, default=list, verbose_name='grant types')),
                ('approved', models.BooleanField(default=False, help_text="If on, users see the client as verified even if it "
            "registered itself.", verbose_name='approved')),
                ('blocked', models.BooleanField(default=False, help_text="If on, the client can neither sign users in nor refresh "
            "tokens.", verbose_name='blocked')),
                ('client_jwks', models.JSONField(blank=True, default=dict, help_text="The JWK Set with the client's public keys, for "
            "private_key_jwt.", verbose_name="client JWKS")),
                ('networks', models.TextField(blank=True, default='', help_text="Enter IP addresses or networks such as 10.0.0.0/8, "
            "separated by spaces. Leave empty to allow any address.", validators=[accounts.http.ip_networks.validate_networks], verbose_name="allowed IP addresses")),
                ('max_idle', models.PositiveIntegerField(blank=True, help_text="Tokens expire after this time without use. The minimum is "
            "300. Leave empty to use the server setting.", null=True, validators=[django.core.validators.MinValueValidator(300)], verbose_name="idle timeout (seconds)")),
                ('registered', models.JSONField(blank=True, default=dict, editable=False)),
                ('last_used_at', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='last used at')),
                ('service_account', models.ForeignKey(blank=True, help_text="The account that the client acts as with client "
            "credentials.", null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='service account')),
                ('user', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(app_label)s_%(class)s', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'verbose_name': 'OAuth client',
                'verbose_name_plural': 'OAuth clients',
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='OAuthGrant',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('code', models.CharField(max_length=255, unique=True, verbose_name='code')),
                ('expires', models.DateTimeField(verbose_name='expires')),
                ('redirect_uri', models.TextField(verbose_name='redirect URI')),
                ('scope', models.TextField(blank=True, verbose_name='scope')),
                ('created', models.DateTimeField(auto_now_add=True, verbose_name='created')),
                ('updated', models.DateTimeField(auto_now=True, verbose_name='updated')),
                ('code_challenge', models.CharField(blank=True, default='', max_length=128, verbose_name='code challenge')),
                ('code_challenge_method', models.CharField(blank=True, choices=[('plain', 'plain'), ('S256', 'S256')], default='', max_length=10, verbose_name='code challenge method')),
                ('nonce', models.CharField(blank=True, default='', max_length=255, verbose_name='nonce')),
                ('claims', models.TextField(blank=True, verbose_name='claims')),
                ('resource', oauth2_provider.models.ResourceJSONField(blank=True, default=list, verbose_name='resource')),
                ('family', models.UUIDField(default=uuid.uuid4, verbose_name='family')),
                ('redeemed_at', models.DateTimeField(blank=True, null=True, verbose_name='redeemed at')),
                ('auth_digest', models.CharField(default='', editable=False, max_length=64)),
                ('application', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.OAUTH2_PROVIDER_APPLICATION_MODEL, verbose_name='application')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='%(app_label)s_%(class)s', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'verbose_name': 'authorization code',
                'verbose_name_plural': 'authorization codes',
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='OAuthIDToken',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('jti', models.UUIDField(default=uuid.uuid4, editable=False, unique=True, verbose_name='JWT Token ID')),
                ('expires', models.DateTimeField(verbose_name='expires')),
                ('scope', models.TextField(blank=True, verbose_name='scope')),
                ('created', models.DateTimeField(auto_now_add=True, verbose_name='created')),
                ('updated', models.DateTimeField(auto_now=True, verbose_name='updated')),
                ('application', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, to=settings.OAUTH2_PROVIDER_APPLICATION_MODEL, verbose_name='application')),
                ('user', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(app_label)s_%(class)s', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='OAuthAccessToken',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('token', models.TextField(verbose_name='token')),
                ('token_checksum', oauth2_provider.models.TokenChecksumField(db_index=True, max_length=64, unique=True, verbose_name='token checksum')),
                ('expires', models.DateTimeField(verbose_name='expires')),
                ('scope', models.TextField(blank=True, verbose_name='scope')),
                ('resource', oauth2_provider.models.ResourceJSONField(blank=True, default=list, verbose_name='resource')),
                ('created', models.DateTimeField(auto_now_add=True, verbose_name='created')),
                ('updated', models.DateTimeField(auto_now=True, verbose_name='updated')),
                ('user', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(app_label)s_%(class)s', to=settings.AUTH_USER_MODEL, verbose_name='user')),
                ('application', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, to=settings.OAUTH2_PROVIDER_APPLICATION_MODEL, verbose_name='application')),
                ('id_token', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='access_token', to=settings.OAUTH2_PROVIDER_ID_TOKEN_MODEL, verbose_name='ID token')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='OAuthRefreshToken',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('token', models.TextField(verbose_name='token')),
                ('token_checksum', oauth2_provider.models.TokenChecksumField(max_length=64, verbose_name='token checksum')),
                ('token_family', models.UUIDField(blank=True, editable=False, null=True, verbose_name='token family')),
                ('resource', oauth2_provider.models.ResourceJSONField(blank=True, default=list, verbose_name='resource')),
                ('created', models.DateTimeField(auto_now_add=True, verbose_name='created')),
                ('updated', models.DateTimeField(auto_now=True, verbose_name='updated')),
                ('revoked', models.DateTimeField(null=True, verbose_name='revoked')),
                ('access_token', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='refresh_token', to=settings.OAUTH2_PROVIDER_ACCESS_TOKEN_MODEL, verbose_name='access token')),
                ('application', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.OAUTH2_PROVIDER_APPLICATION_MODEL, verbose_name='application')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='%(app_label)s_%(class)s', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.AddField(
            model_name='oauthaccesstoken',
            name='source_refresh_token',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='refreshed_access_token', to=settings.OAUTH2_PROVIDER_REFRESH_TOKEN_MODEL, verbose_name='source refresh token'),
        ),
        migrations.CreateModel(
            name='RevokedToken',
            fields=[
                ('jti', models.CharField(max_length=64, primary_key=True, serialize=False, verbose_name="token ID")),
                ('until', models.DateTimeField(db_index=True, help_text="The expiry time of the token. The row can be deleted "
            "afterwards.", verbose_name='until')),
                ('revoked_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='revoked at')),
                ('revoked_by', models.CharField(blank=True, max_length=150, verbose_name='revoked by')),
                ('reason', models.CharField(blank=True, max_length=255, verbose_name='reason')),
            ],
            options={
                'verbose_name': 'revoked token',
                'verbose_name_plural': 'revoked tokens',
                'ordering': ('-revoked_at',),
                'indexes': [models.Index(fields=['revoked_at'], name='revoked_at'), models.Index(fields=['revoked_by', 'revoked_at'], name='revoked_by')],
            },
        ),
        migrations.CreateModel(
            name='AccessRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('reason', models.CharField(max_length=255, verbose_name='reason')),
                ('until', models.DateTimeField(blank=True, null=True, verbose_name="requested until")),
                ('state', models.CharField(choices=[('open', "waiting for approval"), ('approved', 'approved'), ('declined', 'declined'), ('withdrawn', 'withdrawn')], db_index=True, default='open', max_length=9, verbose_name='state')),
                ('asked_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name="requested at")),
                ('decided_at', models.DateTimeField(blank=True, null=True, verbose_name='decided at')),
                ('given_until', models.DateTimeField(blank=True, help_text="Leave empty for no end date.", null=True, verbose_name="granted until")),
                ('answer', models.CharField(blank=True, help_text="The requester sees this message in the portal.", max_length=255, verbose_name="message")),
                ('decided_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='decided by')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='access_requests', to=settings.AUTH_USER_MODEL, verbose_name="user")),
                ('role', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='accounts.role', verbose_name='role')),
            ],
            options={
                'verbose_name': 'access request',
                'verbose_name_plural': 'access requests',
                'ordering': ('-asked_at', '-id'),
            },
        ),
        migrations.CreateModel(
            name='RoleAssignment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('reason', models.CharField(blank=True, max_length=255, verbose_name='reason')),
                ('granted_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='granted at')),
                ('expires_at', models.DateTimeField(blank=True, help_text="Leave empty for no end date.", null=True, verbose_name='expires at')),
                ('granted_by', models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='granted by')),
                ('role', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='assignments', to='accounts.role', verbose_name='role')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='role_assignments', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'verbose_name': 'role assignment',
                'verbose_name_plural': 'role assignments',
                'ordering': ('role__name',),
            },
        ),
        migrations.CreateModel(
            name='SavedView',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=80, verbose_name='name')),
                ('query', models.CharField(blank=True, max_length=2000, verbose_name='query')),
                ('shared', models.BooleanField(default=False, help_text="Everyone who can view the audit sees this view.", verbose_name='shared')),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='saved_views', to=settings.AUTH_USER_MODEL, verbose_name='owner')),
            ],
            options={
                'verbose_name': 'saved view',
                'verbose_name_plural': 'saved views',
                'ordering': ('name', 'pk'),
            },
        ),
        migrations.AddField(
            model_name='role',
            name='scopes',
            field=models.ManyToManyField(blank=True, related_name='roles', to='accounts.scope', verbose_name='scopes'),
        ),
        migrations.CreateModel(
            name='SigningKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kid', models.CharField(max_length=64, unique=True, verbose_name="key ID")),
                ('algorithm', models.CharField(choices=[('ES256', 'ES256'), ('RS256', 'RS256'), ('EdDSA', 'EdDSA')], max_length=8, verbose_name='algorithm')),
                ('state', models.CharField(choices=[('next', "next (announced, not used yet)"), ('active', "active (signs new tokens)"), ('retiring', "retiring (verification only)"), ('retired', "retired (its tokens are rejected)")], db_index=True, default='next', max_length=8, verbose_name='state')),
                ('public_pem', models.TextField(verbose_name='public key')),
                ('private_encrypted', models.BinaryField()),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('activated_at', models.DateTimeField(blank=True, null=True, verbose_name='activated at')),
                ('retiring_at', models.DateTimeField(blank=True, null=True, verbose_name='retiring at')),
                ('retired_at', models.DateTimeField(blank=True, null=True, verbose_name='retired at')),
            ],
            options={
                'verbose_name': 'signing key',
                'verbose_name_plural': 'signing keys',
                'ordering': ('-created_at', '-id'),
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'active')), fields=('state',), name='one_active_signing_key')],
            },
        ),
        migrations.CreateModel(
            name='ClaimRule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('claim', models.CharField(help_text="The name of the claim, such as groups, or "
            "realm_access.roles for a nested claim.", max_length=100, verbose_name='claim')),
                ('value', models.CharField(help_text="The value must match exactly.", max_length=255, verbose_name='value')),
                ('role', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='accounts.role', verbose_name='role')),
                ('provider', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='rules', to='accounts.signinprovider', verbose_name='provider')),
            ],
            options={
                'verbose_name': 'claim rule',
                'verbose_name_plural': 'claim rules',
                'ordering': ('claim', 'value'),
            },
        ),
        migrations.CreateModel(
            name='ImportDraft',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(max_length=16)),
                ('content', models.TextField()),
                ('made_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('owner', 'kind'), name='one_draft_per_owner_and_kind')],
            },
        ),
        migrations.CreateModel(
            name='IssuedToken',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('jti', models.CharField(max_length=64, unique=True, verbose_name="token ID")),
                ('kind', models.CharField(choices=[('access', 'access'), ('refresh', 'refresh'), ('personal', 'personal access token')], max_length=8, verbose_name='kind')),
                ('issued_via', models.CharField(choices=[('password', 'password (/api/token/)'), ('authorization_code', "browser sign-in"), ('device', 'device code'), ('client_credentials', 'client credentials'), ('personal', 'personal access token'), ('command', 'command line')], max_length=20, verbose_name='issued through')),
                ('username', models.CharField(max_length=150, verbose_name='username')),
                ('client_id', models.CharField(max_length=255, verbose_name='client')),
                ('scope', models.TextField(help_text="The scopes of the token, separated by spaces.", verbose_name='scope')),
                ('family', models.UUIDField(db_index=True, help_text="All tokens of one sign-in share this ID.", verbose_name='family')),
                ('kid', models.CharField(blank=True, max_length=64, verbose_name='signing key')),
                ('issued_at', models.DateTimeField(db_index=True, verbose_name='issued at')),
                ('issued_to', models.CharField(blank=True, max_length=45, verbose_name='from address')),
                ('expires_at', models.DateTimeField(db_index=True, verbose_name='expires at')),
                ('last_used_at', models.DateTimeField(blank=True, null=True, verbose_name='last used at')),
                ('last_used_from', models.CharField(blank=True, max_length=45, verbose_name='last used from')),
                ('redeemed_at', models.DateTimeField(blank=True, help_text="The time when this refresh token was used.", null=True, verbose_name='redeemed at')),
                ('secret_hash', models.CharField(editable=False, help_text="SHA-256 (hex) of an opaque token. Empty for a signed "
            "token.", max_length=64, null=True, unique=True)),
                ('name', models.CharField(blank=True, help_text="The name that the owner gave this token.", max_length=100, verbose_name='name')),
                ('networks', models.TextField(blank=True, default='', help_text="Enter IP addresses or networks such as 10.0.0.0/8, "
            "separated by spaces. Leave empty to allow any address.", validators=[accounts.http.ip_networks.validate_networks], verbose_name="allowed IP addresses")),
                ('successor_sealed', models.BinaryField(null=True)),
                ('successor', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='accounts.issuedtoken', verbose_name='successor')),
                ('user', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='tokens', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'verbose_name': 'token',
                'verbose_name_plural': 'tokens',
                'ordering': ('-issued_at', '-id'),
                'indexes': [models.Index(fields=['username', 'issued_at'], name='token_owner'), models.Index(fields=['client_id', 'issued_at'], name='token_client'), models.Index(fields=['kind', 'expires_at'], name='token_kind_and_end')],
            },
        ),
        migrations.CreateModel(
            name='Consent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('scope', models.TextField(help_text="The scopes that the user allowed, separated by spaces.", verbose_name='scope')),
                ('redirect_host', models.CharField(blank=True, max_length=255, verbose_name='redirect host')),
                ('given_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name="granted at")),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='consents', to=settings.AUTH_USER_MODEL, verbose_name='user')),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='consents', to=settings.OAUTH2_PROVIDER_APPLICATION_MODEL, verbose_name='client')),
            ],
            options={
                'verbose_name': 'consent',
                'verbose_name_plural': 'consents',
                'ordering': ('-given_at',),
                'constraints': [models.UniqueConstraint(fields=('user', 'client'), name='one_consent_per_user_and_client')],
            },
        ),
        migrations.CreateModel(
            name='OAuthDeviceGrant',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('device_code', models.CharField(max_length=100, verbose_name='device code')),
                ('user_code', models.CharField(max_length=100, verbose_name='user code')),
                ('scope', models.TextField(blank=True, verbose_name='scope')),
                ('interval', models.IntegerField(default=5, verbose_name='interval')),
                ('expires', models.DateTimeField(verbose_name='expires')),
                ('status', models.CharField(blank=True, choices=[('authorized', 'Authorized'), ('authorization-pending', 'Authorization pending'), ('expired', 'Expired'), ('denied', 'Denied')], default='authorization-pending', max_length=64, verbose_name='status')),
                ('last_checked', models.DateTimeField(auto_now=True, verbose_name='last checked')),
                ('client_id', models.CharField(db_index=True, max_length=255)),
                ('polled_at', models.DateTimeField(blank=True, null=True)),
                ('auth_digest', models.CharField(default='', editable=False, max_length=64)),
                ('user', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='%(app_label)s_%(class)s', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'abstract': False,
                'constraints': [models.UniqueConstraint(fields=('device_code',), name='accounts_oauthdevicegrant_unique_device_code')],
            },
        ),
        migrations.AddIndex(
            model_name='oauthrefreshtoken',
            index=models.Index(fields=['token_family'], name='accounts_oa_token_f_300deb_idx'),
        ),
        migrations.AlterUniqueTogether(
            name='oauthrefreshtoken',
            unique_together={('token_checksum', 'revoked')},
        ),
        migrations.AddConstraint(
            model_name='accessrequest',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('user', 'role'), name='one_open_request_per_user_and_role'),
        ),
        migrations.AddConstraint(
            model_name='roleassignment',
            constraint=models.UniqueConstraint(fields=('user', 'role'), name='one_assignment_per_user_and_role'),
        ),
        migrations.AddConstraint(
            model_name='savedview',
            constraint=models.UniqueConstraint(fields=('owner', 'name'), name='one_view_per_owner_and_name'),
        ),
        migrations.AddConstraint(
            model_name='claimrule',
            constraint=models.UniqueConstraint(fields=('provider', 'claim', 'value', 'role'), name='one_claim_rule'),
        ),
    ]
